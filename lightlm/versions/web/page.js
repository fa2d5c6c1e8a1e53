// Continues a text with the model of this folder, in the browser, by transformers.js on ONNX Runtime.
import {
  AutoModelForCausalLM, AutoTokenizer, InterruptableStoppingCriteria, StoppingCriteriaList, Tensor, TextStreamer,
  env,
} from "./lib/transformers.min.js";

env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = new URL("./", import.meta.url).pathname;
env.useBrowserCache = false;
env.useWasmCache = false;
env.backends.onnx.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
env.backends.onnx.wasm.wasmPaths = {
  mjs: new URL("./lib/ort-wasm-simd-threaded.mjs", import.meta.url).href,
  wasm: new URL("./lib/ort-wasm-simd-threaded.wasm", import.meta.url).href,
};

const element = (name) => document.getElementById(name);
const show = (text) => { element("status").textContent = text; };
const stopping = new InterruptableStoppingCriteria();
let tokenizer, model, defaults, context;

async function load() {
  const read = async (name) => (await fetch(new URL(`./model/${name}`, import.meta.url))).json();
  defaults = await read("generation_config.json");
  context = (await read("config.json")).max_position_embeddings;
  tokenizer = await AutoTokenizer.from_pretrained("model");
  model = await AutoModelForCausalLM.from_pretrained("model", { dtype: "fp32", device: "wasm" });
  element("write").disabled = false;
  show("Ready.");
}

// The end of the prompt, where it does not fit into the context.
function encode(prompt, newTokens) {
  const ids = tokenizer.encode(prompt, { add_special_tokens: false });
  return ids.slice(-Math.max(1, context - newTokens));
}

async function write() {
  const prompt = element("prompt").value;
  const newTokens = Math.min(Number(element("tokens").value), context - 1);
  const temperature = Number(element("temperature").value);
  const ids = encode(prompt, newTokens);
  const given = document.createElement("span");
  given.className = "given";
  given.textContent = prompt;
  const added = document.createElement("span");
  element("text").replaceChildren(given, added);

  let count = 0;
  const started = performance.now();
  const streamer = new TextStreamer(tokenizer, {
    skip_prompt: true,
    skip_special_tokens: true,
    callback_function: (piece) => { added.textContent += piece; },
    token_callback_function: (tokens) => {
      count += tokens.length;
      show(`${count} tokens, ${(1000 * count / (performance.now() - started)).toFixed(0)} per second`);
    },
  });

  const input_ids = new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
  const attention_mask = new Tensor("int64", new BigInt64Array(ids.length).fill(1n), [1, ids.length]);
  stopping.reset();
  const criteria = new StoppingCriteriaList();
  criteria.push(stopping);
  await model.generate({
    ...defaults,
    input_ids,
    attention_mask,
    max_new_tokens: newTokens,
    do_sample: temperature > 0,
    temperature: temperature > 0 ? temperature : 1,
    streamer,
    stopping_criteria: criteria,
  });
}

async function guard(work) {
  try {
    await work();
  } catch (error) {
    show(`This did not work: ${error.message ?? error}`);
    document.body.dataset.failed = "yes";
  }
}

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  element("write").disabled = true;
  element("stop").disabled = false;
  await guard(write);
  element("stop").disabled = true;
  element("write").disabled = false;
});
element("stop").addEventListener("click", () => stopping.interrupt());
guard(load);
