// Write: one or two versions continue a text, token by token; each token tells how likely it was.

import { get, post, send } from "./api.js";
import { announce, find, h, showError } from "./dom.js";

const ALTERNATIVES = 8;
const SEEDS = 2 ** 31;
const form = find("#write-form");
let writing = null;

export function startWrite(state) {
  find("#temperature").value = state.sampling.temperature;
  find("#length").value = state.sampling.max_new_tokens;
  const showTemperature = () => {
    find("#temperature-shown").textContent = Number(find("#temperature").value).toFixed(2);
  };
  find("#temperature").addEventListener("input", showTemperature);
  showTemperature();
  find("#tint").addEventListener("change", () => find("#written").classList.toggle("tinted", find("#tint").checked));
  find("#written").classList.add("tinted");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    write();
  });
  find("#write-stop").addEventListener("click", () => writing?.abort());
  find("#prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}

export async function openWrite() {
  try {
    const { models } = await get("/api/models");
    const options = models.flatMap((model) => [
      ...(model.versions.some((one) => one.aliases.includes("champion")) ? [[`${model.name}@champion`, `${model.name}, champion`]] : []),
      ...model.versions.map((one) => [`${model.name}/${one.version}`, `${model.name} ${one.version}${one.bits_per_byte ? ` (${Number(one.bits_per_byte).toFixed(3)})` : ""}`]),
    ]);
    offer(find("#version-a"), options);
    offer(find("#version-b"), [["", "none"], ...options]);
    showError(form, "");
    find("#no-model").hidden = models.length > 0;
    find("button.primary", form).disabled = !models.length;
    if (models.length) await post("/api/writer");
  } catch (error) {
    showError(form, error.message);
  }
}

/** Choose a version for the next text. */
export function chooseVersion(name) {
  find("#version-a").dataset.wanted = name;
}

function offer(select, options) {
  const wanted = select.dataset.wanted ?? select.value;
  delete select.dataset.wanted;
  select.replaceChildren(...options.map(([value, name]) => h("option", { value }, name)));
  if (options.some(([value]) => value === wanted)) select.value = wanted;
}

async function write() {
  if (writing) return;
  showError(form, "");
  writing = new AbortController();
  const stop = find("#write-stop");
  const go = find("button.primary", form);
  stop.hidden = false;
  go.disabled = true;
  const given = find("#seed").value;
  const seed = given === "" ? Math.floor(Math.random() * SEEDS) : Number(given);
  const versions = [find("#version-a").value, find("#version-b").value].filter(Boolean);
  const prompt = find("#prompt").value;
  const papers = versions.map((version) => new Paper(version, prompt, seed));
  find("#written").replaceChildren(...papers.map((paper) => paper.element));
  announce("Writing");
  try {
    await Promise.all(papers.map((paper) => paper.fill(writing.signal)));
    announce("Written");
  } catch (error) {
    if (error.name !== "AbortError") showError(form, error.message);
    writing.abort();
  } finally {
    writing = null;
    stop.hidden = true;
    go.disabled = false;
  }
}

class Paper {
  constructor(version, prompt, seed) {
    this.version = version;
    this.prompt = prompt;
    this.seed = seed;
    this.tokens = [];
    this.current = -1;
    this.title = h("h3", {}, version);
    this.text = h("div", { class: "paper", tabindex: "0", role: "group", "aria-label": `Text by ${version}; arrow keys go from token to token`, onkeydown: (event) => this.move(event) },
      h("span", { class: "given" }, prompt));
    this.inspect = h("div", { class: "inspect", "aria-live": "polite" }, h("p", { class: "quiet" }, "Point at a token, tap it, or use the arrow keys."));
    this.facts = h("span", { class: "quiet" }, `seed ${seed}`);
    this.element = h("section", { class: "card", "aria-label": version }, h("div", { class: "head" }, this.title, this.facts), this.text, this.inspect);
  }

  async fill(signal) {
    const answer = await send("POST", "/api/completions", {
      model: this.version, prompt: this.prompt, stream: true, logprobs: ALTERNATIVES, seed: this.seed,
      temperature: Number(find("#temperature").value), max_tokens: Number(find("#length").value) || 1,
    }, { signal });
    let began = null; // the first text of a version waits until its weights are read
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      began ??= performance.now();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) this.take(event.replace(/^data: /, ""));
    }
    const seconds = (performance.now() - (began ?? 0)) / 1000;
    const speed = this.tokens.length > 1 && seconds > 0.02 ? `, ${((this.tokens.length - 1) / seconds).toFixed(0)} per second` : "";
    this.facts.textContent = `${this.tokens.length} tokens${speed}, seed ${this.seed}`;
  }

  take(word) {
    if (word === "[DONE]") return;
    const event = JSON.parse(word);
    if (event.error) throw new Error(event.error.message);
    const [choice] = event.choices;
    if (!choice) return;
    this.title.textContent = event.model;
    const scores = choice.logprobs;
    const letters = Array.from(choice.text ?? "");
    const offset = this.length ?? 0;
    this.length = offset + letters.length;
    const count = scores?.tokens.length ?? 0;
    if (!count) {
      this.text.append(choice.text);
      return;
    }
    for (let index = 0; index < count; index += 1) {
      const from = index === 0 ? 0 : Math.max(0, scores.text_offset[index] - offset);
      const to = index + 1 < count ? Math.max(0, scores.text_offset[index + 1] - offset) : letters.length;
      this.add(letters.slice(from, to).join(""), scores.tokens[index], scores.token_logprobs[index], scores.top_logprobs?.[index] ?? {});
    }
  }

  add(text, name, logprob, alternatives) {
    const number = this.tokens.length;
    const element = h("span", { class: "token", onmouseenter: () => this.show(number), onclick: () => this.show(number) }, text);
    element.style.setProperty("--likely", Math.exp(logprob ?? 0).toFixed(3));
    this.tokens.push({ element, name, logprob, alternatives });
    this.text.append(element);
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || !this.tokens.length) return;
    event.preventDefault();
    this.show(Math.min(this.tokens.length - 1, Math.max(0, this.current + step)));
  }

  show(number) {
    this.tokens[this.current]?.element.classList.remove("current");
    this.current = number;
    const token = this.tokens[number];
    token.element.classList.add("current");
    const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;
    const others = Object.entries(token.alternatives).sort((a, b) => b[1] - a[1]);
    this.inspect.replaceChildren(
      h("p", {}, h("code", {}, JSON.stringify(token.name)), ` ${token.logprob === null ? "" : percent(token.logprob)}, token ${number + 1}`),
      h("ol", { "aria-label": "Most likely tokens here" }, others.map(([name, logprob]) => h("li", {}, h("code", {}, JSON.stringify(name)), percent(logprob)))));
  }
}
