"""Scores of lm-evaluation-harness: what is read of its answer, and the table that keeps them."""

from lightlm.evaluation.task_scores import TaskScore, make_table, read_answer, read_table

ANSWER = {
    "results": {
        "blimp_adjunct_island": {
            "name": "blimp_adjunct_island",
            "alias": " - blimp_adjunct_island",
            "sample_len": 1000,
            "acc,none": 0.75,
            "acc_stderr,none": 0.01,
        },
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.0,
            "exact_match_stderr,strict-match": "N/A",
        },
    },
    "groups": {"blimp": {"name": "blimp", "alias": "blimp", "acc,none": 0.6}},
    "versions": {"blimp_adjunct_island": 1.0},
    "n-shot": {"blimp_adjunct_island": 0, "gsm8k": 5},
    "higher_is_better": {"blimp_adjunct_island": {"acc": True}},
    "n-samples": {"blimp_adjunct_island": {"original": 1000, "effective": 20}},
}


def test_each_metric_of_each_task_and_group_is_a_score_with_its_error_where_there_is_one() -> None:
    scores = {score.name: score for score in read_answer(ANSWER)}
    assert list(scores) == [
        "tasks/blimp_adjunct_island/acc",
        "tasks/gsm8k/exact_match/strict-match",
        "tasks/blimp/acc",
    ]
    assert scores["tasks/blimp_adjunct_island/acc"] == TaskScore(
        task="blimp_adjunct_island", metric="acc", value=0.75, stderr=0.01, higher_is_better=True,
        num_documents=20, num_fewshot=0, task_version="1.0",
    )  # fmt: skip
    assert scores["tasks/blimp_adjunct_island/acc"].format() == "0.7500 ± 0.0100"
    assert scores["tasks/gsm8k/exact_match/strict-match"].format() == "0.0000"


def test_a_table_gives_back_the_scores_that_it_was_made_of() -> None:
    scores = read_answer(ANSWER)
    assert read_table(make_table(scores)) == scores
