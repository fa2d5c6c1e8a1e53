// Train: starts runs, and follows any run of this home, wherever it was started.

import { get, post } from "./api.js";
import { chart } from "./charts.js";
import { announce, find, formatBits, formatCount, formatHours, formatSeconds, h, showError, table, tiles } from "./dom.js";
import { READING, change, choose, recipe } from "./recipe.js";

const LIST_MS = 3000;
const LOOK_MS = 1000;
const form = find("#train-form");

let isOpen = false;
let chosen = null; // the run that is shown
let runs = [];
let before = null; // states when a training was started here: the run that differs is the new one
let shown = null;
let drawnAs = null; // the record of the list that `shown` is drawn with
const stopping = new Set(); // runs that were asked to end: a second signal would not wait for a checkpoint

export function startTrain(state) {
  find("#sample-prompt").placeholder = state.sample_prompt;
  find("#sample-prompt").addEventListener("change", (event) => change({ sample_prompt: event.target.value.trim() }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start(() => post("/api/runs", { ...choose(...READING, "hours", "name", "start", "sample_prompt"), is_fresh: find("#fresh").checked }));
  });
  window.addEventListener("resize", () => shown && draw(shown));
}

export function openTrain() {
  find("#sample-prompt").value = recipe.sample_prompt;
  if (isOpen) return;
  isOpen = true;
  repeat(list, LIST_MS);
  repeat(look, LOOK_MS);
}

export function closeTrain() {
  isOpen = false;
}

async function repeat(act, milliseconds) {
  while (isOpen) {
    if (!document.hidden) await act().catch((error) => showError(form, error.message));
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

async function start(ask) {
  showError(form, "");
  const button = find("button.primary", form);
  button.disabled = true;
  const states = new Map(runs.map((run) => [run.run, run.state]));
  try {
    const job = await ask();
    before = states;
    announce(`Started: ${job.command}`);
    find("#train-new").open = false;
    chosen = null;
    shown = null;
    find("#live").replaceChildren();
    await list();
  } catch (error) {
    showError(form, error.message);
  } finally {
    button.disabled = false;
  }
}

async function list() {
  const found = await get("/api/runs");
  runs = found.runs;
  const begun = before && runs.find((run) => run.state === "running" && before.get(run.run) !== "running");
  if (begun) {
    before = null;
    select(begun.run);
  }
  if (!before && !chosen) {
    const running = runs.find((run) => run.state === "running");
    if (running) find("#train-new").open = false;
    chosen = (running ?? runs[0])?.run ?? null;
  }
  drawTrainings(found.trainings);
  drawRuns();
  // The list may learn that a run has ended after the run itself is not looked at any more.
  if (shown && describeRecord(shown.run) !== drawnAs) draw(shown);
}

function describeRecord(name) {
  const record = runs.find((one) => one.run === name);
  return `${record?.state} ${record?.can_continue}`;
}

function drawTrainings(trainings) {
  const newest = trainings[0];
  const parts = [];
  if (before && newest?.state === "failed") {
    before = null;
    showError(form, newest.error);
    find("#train-new").open = true;
  }
  if (newest?.state !== "running") before = null; // it ended before it was seen as a run
  if (before) {
    parts.push(h("p", { class: "card", role: "status" }, "Starting ", h("code", {}, newest.command)));
  }
  find("#trainings").replaceChildren(...parts);
}

function drawRuns() {
  const focused = document.activeElement?.dataset?.run;
  const place = find("#runs");
  if (!runs.length) {
    place.replaceChildren(h("p", { class: "quiet" }, "No run yet. Runs that commands, notebooks and deployments start on this machine show here, too."));
    return;
  }
  place.replaceChildren(...runs.map((run) => h("button", { class: "run", "data-run": run.run, "aria-pressed": String(run.run === chosen), onclick: () => select(run.run) },
    h("span", { class: "top" }, h("b", {}, run.dataset || run.name), h("span", { class: `badge ${run.state}` }, run.state)),
    h("span", { class: "quiet" }, `${new Date(run.started_at * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" })}${run.hours ? `, ${formatHours(run.hours)}` : ""}`),
    h("span", { class: "quiet" }, run.bits_per_byte !== null ? `${formatBits(run.bits_per_byte)} bits per byte` : "", run.predicted_bits_per_byte !== null ? ` (plan ${run.predicted_bits_per_byte.toFixed(2)})` : ""))));
  if (focused) find(`[data-run="${focused}"]`, place)?.focus();
}

function select(run) {
  chosen = run;
  shown = null;
  find("#live").replaceChildren();
  drawRuns();
  look().catch((error) => showError(form, error.message));
}

async function look() {
  const run = chosen;
  if (!run) return;
  const isOver = shown?.run === run && shown.status !== null && (shown.report || shown.status !== "FINISHED");
  const state = runs.find((one) => one.run === run)?.state;
  if (isOver && state !== "running") return;
  const found = await get(`/api/runs/${run}`);
  if (run !== chosen) return;
  if (shown?.run === run && shown.status === null && found.status === "FINISHED") announce("The run has finished");
  shown = found;
  draw(found);
}

function draw(run) {
  const place = find("#live");
  if (place.clientWidth === 0) return;
  const record = runs.find((one) => one.run === run.run);
  const isRunning = record?.state === "running";
  if (!isRunning) stopping.delete(run.run);
  drawnAs = describeRecord(run.run);
  const left = Math.max(0, run.budget - run.elapsed);
  const wasOpen = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.part));
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.part : null;
  const open = (part) => ({ class: "card", "data-part": part, open: wasOpen.has(part) });

  place.replaceChildren(
    h("section", { class: "card", "aria-label": "The run" },
      h("div", { class: "head" }, h("h2", {}, record?.dataset || run.name),
        h("span", { class: "row" }, isRunning && h("button", { class: "danger", "data-part": "stop", disabled: stopping.has(run.run), onclick: () => stop(run.run) }, stopping.has(run.run) ? "Stopping" : "Stop"),
          record?.can_continue && h("button", { class: "primary", "data-part": "continue", onclick: () => start(() => post(`/api/runs/${run.run}/continue`)) }, "Continue"))),
      h("p", { class: "time" }, h("strong", {}, isRunning ? `${formatSeconds(left)} left` : record?.state ?? ""), h("span", { class: "quiet" }, `${formatSeconds(run.elapsed)} of ${formatSeconds(run.budget)}`)),
      h("progress", { max: run.budget || 1, value: Math.min(run.elapsed, run.budget || 1), "aria-label": "Time used" }),
      h("p", {}, isRunning ? run.stage : run.ending || run.stage),
      isRunning ? "" : stateHelp(record)),
    ...(run.report ? [drawReport(run)] : []),
    tiles([
      ["Held out", formatBits(run.bits_per_byte ?? NaN), run.predicted ? `bits per byte, the network; plan ${formatBits(run.predicted[0])} (${run.predicted[1].toFixed(2)}–${run.predicted[2].toFixed(2)})` : "bits per byte"],
      ["Loss", run.loss === null ? "–" : run.loss.toFixed(3), "nats per token"],
      ["Step", formatCount(run.step), `${formatCount(run.tokens)} tokens`],
      ["Speed", run.tokens_per_second === null ? "–" : formatCount(run.tokens_per_second), `tokens/s${run.phrases[0] ? `, ${run.phrases[0]}` : ""}`],
    ]),
    h("section", { class: "card", "aria-label": "Score against the forecast" }, h("h3", {}, "Score against the forecast"), drawCurve(place, run) ?? h("p", { class: "quiet" }, "It begins with the training."),
      run.shape ? h("p", { class: "quiet" }, run.shape) : ""),
    ...(run.sample ? [h("section", { class: "card", "aria-label": "Sample" }, h("h3", {}, `What it writes after ${formatCount(run.sample.step)} steps`), h("p", { class: "sample" }, run.sample.text))] : []),
    h("details", open("ledger"), h("summary", {}, "Where the time goes"),
      table("Seconds of the budget by stage", ["stage", ">time"], run.ledger.map(([name, seconds]) => [name, formatSeconds(seconds)]))),
    h("details", open("lines"), h("summary", {}, "Lines"), h("pre", { class: "lines", tabindex: "0" }, run.lines.join("\n"))));
  if (focused) find(`[data-part="${focused}"]`, place)?.focus();
}

function stateHelp(record) {
  if (!record || !["stopped", "died"].includes(record.state)) return "";
  return h("p", { class: "quiet" }, record.can_continue ? "What it reached is kept: Continue takes the rest of its time." : "What it reached is kept: the command that started it goes on with the rest of its time.");
}

function drawReport(run) {
  const report = run.report;
  return h("section", { class: "card", "aria-label": "Result" }, h("h3", {}, `${report.version_name}: ${formatBits(report.bits_per_byte)} bits per byte`),
    h("p", {}, `On ${formatCount(report.scored_bytes)} bytes of held-out text${report.parts}. Predicted: ${formatBits(report.predicted_low)} to ${formatBits(report.predicted_high)}. ${capitalize(report.promotion)}.`),
    ...report.notices.map((line) => h("p", { class: "warning" }, line)),
    h("p", { class: "row" }, h("a", { class: "button", href: "#write" }, "Write with it"), h("a", { class: "button", href: "#versions" }, "Its version")));
}

const capitalize = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function drawCurve(place, run) {
  if (!run.curve.length && !run.held_out.length) return null;
  const late = [...run.curve, ...run.held_out].filter(([x]) => x >= 0.02).map(([, y]) => y);
  const all = late.length ? late : [...run.curve, ...run.held_out].map(([, y]) => y);
  const ends = run.predicted ? [run.predicted[1], run.predicted[2]] : [];
  const low = Math.min(...all, ...ends, ...run.forecast.map(([, y]) => y));
  const high = Math.max(low + 0.2, ...all, ...ends);
  return chart(place, {
    series: [
      { name: "forecast", kind: "dashed", points: run.forecast },
      { name: "training loss", kind: "line", points: run.curve },
      { name: "held out", kind: "marks", points: run.held_out },
      ...(run.predicted ? [{ name: "predicted end", kind: "intervals", points: [[1, ...run.predicted]] }] : []),
    ],
    range: [low - 0.04 * (high - low), high + 0.04 * (high - low)],
    ticks: [[0, "0 %"], [0.5, "50 %"], [1, "100 %"]],
    label: `Bits per byte: ${run.bits_per_byte === null ? "not scored yet" : formatBits(run.bits_per_byte)}${run.predicted ? `, predicted ${formatBits(run.predicted[0])}` : ""}`,
    xName: "training time",
  });
}

async function stop(run) {
  stopping.add(run);
  if (shown) draw(shown);
  try {
    await post(`/api/runs/${run}/stop`);
    announce("Stopping; what it reached is kept");
  } catch (error) {
    stopping.delete(run);
    showError(form, error.message);
    find("#train-new").open = true;
  }
}
