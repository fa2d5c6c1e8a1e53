"""Tests that a text with borders between its documents costs the same here and in transformers,
from one folder.
"""

import numpy as np
import torch

from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.evaluation.scoring import score_texts
from lightlm.model.hugging_face import load_model

DOCUMENTS = ("the old river 7", "walks  under\n", "stone 21", "caf\u00e9 1914")


def test_documents_joined_by_the_end_of_text_token_have_our_ids_and_our_nats(hugging_face_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = hugging_face_folder()
    tokenizer = load_tokenizer(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    end = theirs.eos_token
    ids = theirs(end + end.join(DOCUMENTS) + end, add_special_tokens=False)["input_ids"]
    ours = [tokenizer.end_of_text_id]
    for document in DOCUMENTS:
        ours += [*tokenizer.encode(document), tokenizer.end_of_text_id]

    assert ids == ours
    assert tokenizer.end_of_text_id not in tokenizer.encode(end.join(DOCUMENTS))

    model = load_model(folder)
    assert len(ids) <= model.config.context_length + 1
    documents = [document.encode() for document in DOCUMENTS]
    nats, _ = score_texts(model, tokenizer, documents, ends=np.ones(len(documents), dtype=bool))
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = reference(torch.tensor([ids[:-1]])).logits[0]

    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum")
    assert abs(float(np.sum(nats)) - float(expected)) < 1e-4 * float(expected)
