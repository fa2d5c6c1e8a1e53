// Versions: scores and champions over time, reports, exports, promote and rollback.

import { get, runCommand } from "./api.js";
import { chart } from "./charts.js";
import { announce, find, formatBits, formatBytes, formatCount, formatHours, h, showError } from "./dom.js";
import { chooseVersion } from "./write.js";

const view = find("#view-versions");

/** Formats of an export: what is given to --to, and to --quantize behind a slash. */
const FORMATS = [
  ["hf", "transformers"], ["gguf", "llama.cpp, Ollama"], ["gguf/f16", "llama.cpp, 16 bits"], ["gguf/q8_0", "llama.cpp, 8 bits"],
  ["gguf/q5_0", "llama.cpp, 5 bits"], ["gguf/q4_0", "llama.cpp, 4 bits"], ["onnx", "ONNX Runtime"], ["web", "a page for the browser"],
];
let models = [];

export function startVersions() {
  window.addEventListener("resize", () => view.hidden || draw());
}

export async function openVersions() {
  try {
    ({ models } = await get("/api/models"));
    showError(view, "");
    draw();
  } catch (error) {
    showError(view, error.message);
  }
}

function draw() {
  const place = find("#models");
  if (!models.length) {
    place.replaceChildren(h("p", { class: "card" }, "No model yet. ", h("a", { href: "#train" }, "Train one"), "."));
    return;
  }
  const opened = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.part));
  place.replaceChildren(...models.map((model, index) => drawModel(place, model, index === 0, opened)));
}

function drawModel(place, model, isFirst, opened) {
  const champion = model.versions.find((one) => one.aliases.includes("champion"));
  const previous = model.versions.find((one) => one.aliases.includes("previous"));
  return h("section", { class: "card", "aria-label": model.name },
    h("div", { class: "head" }, h("h2", {}, model.name),
      previous && h("button", { onclick: (event) => act(event.target, { kind: "rollback", name: model.name }, (done) => `Version ${done.champion} is champion again`) }, `Roll back to version ${previous.version}`)),
    h("p", { class: "quiet" }, champion ? `Champion: version ${champion.version}, ${formatBits(Number(champion.bits_per_byte || NaN))} bits per byte` : "No champion yet"),
    drawScores(place, model),
    h("ul", { class: "plain-list" }, model.versions.map((version, number) => drawVersion(model, version, opened, isFirst && number === 0))));
}

function drawScores(place, model) {
  const scored = model.versions.filter((one) => one.bits_per_byte).map((one) => [Number(one.version), Number(one.bits_per_byte), one]).reverse();
  if (scored.length < 2) return "";
  const champions = scored.filter(([, , one]) => one.aliases.includes("champion"));
  return chart(place, {
    series: [
      { name: "version", kind: "line", points: scored },
      { name: "", kind: "marks", mark: "other", points: scored.map(([x, y]) => [x, y]) },
      { name: "champion", kind: "marks", points: champions.map(([x, y]) => [x, y]) },
    ].map((one) => ({ ...one, points: one.points.map(([x, y]) => [x, y]) })),
    ticks: scored.length <= 12 ? scored.map(([x]) => [x, String(x)]) : [scored[0], scored.at(-1)].map(([x]) => [x, String(x)]),
    label: `Bits per byte by version: ${scored.map(([x, y]) => `version ${x} ${formatBits(y)}`).join(", ")}`,
    xName: "version; less is better, on the same text", height: 190,
  });
}

function drawVersion(model, version, opened, isFirst) {
  const part = `${model.name}/${version.version}`;
  const facts = [
    version.bits_per_byte && ["Bits per byte", formatBits(Number(version.bits_per_byte))],
    version.num_parameters && ["Parameters", formatCount(Number(version.num_parameters))],
    version.hours && ["Time", formatHours(Number(version.hours))],
    version.dataset && ["Text", version.dataset],
    version.started_from && ["Started from", version.started_from],
    ["Registered", new Date(version.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })],
  ].filter(Boolean);
  const isChampion = version.aliases.includes("champion");
  const format = h("select", { "aria-label": `Format of the export of version ${version.version}` }, FORMATS.map(([value, name]) => h("option", { value }, name)));
  return h("li", {}, h("details", { "data-part": part, class: "card", open: opened.has(part) || isFirst },
    h("summary", {}, `Version ${version.version}${version.bits_per_byte ? `: ${formatBits(Number(version.bits_per_byte))} bits per byte` : ""} `, version.aliases.map((alias) => h("span", { class: `badge ${alias}` }, alias))),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    version.promotion ? h("p", { class: "quiet" }, version.promotion) : "",
    h("p", { class: "row" },
      h("a", { class: "button", href: "#write", onclick: () => chooseVersion(part) }, "Write with it"),
      h("button", { disabled: isChampion, onclick: (event) => act(event.target, { kind: "promote", name: model.name, version: version.version }, (done) => `Version ${done.champion} is champion`) }, "Make champion"),
      version.run ? h("button", { onclick: (event) => report(event.target, version.run) }, "Report") : h("span", { class: "quiet" }, "its run is not on this machine")),
    h("p", { class: "row" }, format, h("button", { onclick: (event) => act(event.target, exportRequest(model, version, format.value), describeExport) }, "Export")),
    h("p", { class: "said", role: "status" }),
    version.exports.map((one) => h("div", {}, h("p", { class: "quiet" }, `${one.to}: ${one.folder}`),
      h("ul", { class: "plain-list row" }, one.files.map((file) => h("li", {}, h("a", { href: `/documents/exports/${encodeURIComponent(one.name)}/${file.name.split("/").map(encodeURIComponent).join("/")}`, download: true }, file.name), h("span", { class: "quiet" }, ` ${formatBytes(file.bytes)}`))))))));
}

function exportRequest(model, version, format) {
  const [to, quantize] = format.split("/");
  return { kind: "export", name: model.name, version: version.version, to, ...(quantize ? { quantize } : {}) };
}

function describeExport(done) {
  const parts = [`Exported, and compared with ${done.checked_with}: logits within ${done.largest_difference.toExponential(1)}`];
  const rounded = done.rounded;
  if (rounded) {
    const cost = 100 * (rounded.bits_per_byte / rounded.fp32_bits_per_byte - 1);
    parts[0] = `Exported as ${rounded.quantization}: ${rounded.bits_per_byte.toFixed(4)} bits per byte, fp32 ${rounded.fp32_bits_per_byte.toFixed(4)} (${cost >= 0 ? "+" : ""}${cost.toFixed(2)} %)`;
  }
  if (done.format === "web") parts.push(`Open it with: python -m http.server --bind 127.0.0.1 --directory "${done.folder}" 8080, then at port 8080 of this machine`);
  return parts.join(". ");
}

/** Run a command of a version; then show the versions as they are now. */
async function act(button, request, describe) {
  showError(view, "");
  button.disabled = true;
  const said = button.closest("details")?.querySelector(".said");
  if (said) said.textContent = "Working …";
  try {
    const job = await runCommand(request);
    const message = job ? describe(job.result) : "Stopped";
    await openVersions();
    announce(message);
    const part = `${request.name}/${request.version}`;
    const place = [...view.querySelectorAll("details")].find((one) => one.dataset.part === part);
    if (place) place.querySelector(".said").textContent = message;
  } catch (error) {
    showError(view, error.message);
    if (said) said.textContent = "";
    view.querySelector(".error").scrollIntoView({ block: "center" });
  } finally {
    button.disabled = false;
  }
}

async function report(button, run) {
  // Opened at once: a browser refuses a page that opens after a wait.
  const page = window.open("", "_blank");
  button.disabled = true;
  try {
    await runCommand({ kind: "report", run });
    if (page) page.location = `/documents/reports/${run}`;
    else window.location = `/documents/reports/${run}`;
  } catch (error) {
    page?.close();
    showError(view, error.message);
  } finally {
    button.disabled = false;
  }
}
