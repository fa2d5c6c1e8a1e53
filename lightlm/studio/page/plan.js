// Plan: a slider for the time, the forecast with its interval, the plan and its reasons, other machines, bases.

import { runInForm } from "./api.js";
import { chart } from "./charts.js";
import { announce, find, formatBits, formatCount, formatHours, formatSeconds, h, showError, showLines, table, tiles } from "./dom.js";
import { READING, change, choose, defaultHours, recipe } from "./recipe.js";

const HOURS = [0.02, 0.05, 1 / 12, 1 / 6, 1 / 3, 0.5, 1, 2, 4, 8, 12, 24];
const FIELDS = [...READING, "hours", "name", "start"];
const form = find("#plan-form");
const slider = find("#hours-slider");

let measured = null; // the first plan of a text: later ones use its measurements
let points = []; // [hours, bits, low, high] of the plans and forecasts of this text
let shownKey = null;
let newest = null; // the newest plan of this text

export function openPlan() {
  find("#hours").value = recipe.hours;
  find("#start").value = recipe.start;
  find("#name").value = recipe.name;
  showHours();
  draw();
}

export function startPlan() {
  slider.max = HOURS.length - 1;
  find("#hours").placeholder = String(defaultHours());
  slider.addEventListener("input", () => {
    find("#hours").value = String(+HOURS[slider.value].toFixed(4));
    keep();
  });
  slider.addEventListener("change", () => {
    if (measured && measured.key === keyOf()) plan();
  });
  for (const name of ["#hours", "#start", "#name"]) find(name).addEventListener("change", keep);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    plan();
  });
  find("#remeasure").addEventListener("click", () => {
    measured = null;
    plan();
  });
  find("#compare").addEventListener("click", compare);
  find("#show-bases").addEventListener("click", listBases);
  window.addEventListener("resize", draw);
}

function keep() {
  change({ hours: find("#hours").value.trim(), start: find("#start").value.trim(), name: find("#name").value.trim() });
  showHours();
}

function showHours() {
  const hours = Number(recipe.hours || defaultHours());
  find("#hours-shown").textContent = Number.isNaN(hours) ? recipe.hours : formatHours(hours);
  if (!Number.isNaN(hours)) {
    const distance = (one) => Math.abs(Math.log(HOURS[one] / hours));
    slider.value = [...HOURS.keys()].reduce((best, one) => (distance(one) < distance(best) ? one : best));
  }
  slider.setAttribute("aria-valuetext", find("#hours-shown").textContent);
}

const keyOf = () => JSON.stringify(READING.map((name) => recipe[name]));

async function run(request, message) {
  keep();
  announce(message);
  const key = keyOf();
  const again = measured?.key === keyOf() ? { measured: measured.job } : {};
  const job = await runInForm(form, find("#plan-stop"), { ...request, ...choose(...FIELDS), ...again }, { showError, showLines });
  if (!job) measured = null; // the studio may have been started anew
  return key === keyOf() ? job : null; // another text was chosen meanwhile
}

async function plan() {
  const job = await run({ kind: "plan" }, "Planning");
  if (!job) return;
  if (measured?.key !== keyOf()) {
    measured = { key: keyOf(), job: job.id, hours: find("#hours-shown").textContent };
    points = [];
  }
  newest = job.result;
  const { hours } = newest;
  const known = newest.forecast.map((one) => [one.hours, one.bits_per_byte, one.low, one.high]);
  const chosen = newest.plan;
  points = [...points.filter(([x]) => ![hours, ...known.map(([y]) => y)].includes(x)), ...known.filter(([x]) => x !== hours),
    [hours, chosen.predicted_bits_per_byte, chosen.predicted_low, chosen.predicted_high]].sort((a, b) => a[0] - b[0]);
  draw();
  announce(`Planned: ${formatBits(chosen.predicted_bits_per_byte)} bits per byte`);
}

function draw() {
  const place = find("#plan");
  const isMeasured = measured?.key === keyOf();
  find("#remeasure").hidden = !isMeasured;
  if (shownKey !== keyOf()) { // what is shown is of another text
    shownKey = keyOf();
    newest = null;
    points = [];
    place.replaceChildren();
    find("#machines").replaceChildren();
  }
  if (!newest || form.offsetParent === null) return;
  const { plan: chosen } = newest;
  const shape = chosen.model;
  const isMixed = chosen.counts?.is_mixed;
  const best = isMixed ? chosen.counts : chosen;
  place.replaceChildren(
    tiles([
      ["Predicted", formatBits(best.predicted_bits_per_byte), `bits per byte, ${formatBits(best.predicted_low)} to ${formatBits(best.predicted_high)}${isMixed ? ", with counts" : ""}`],
      ...(isMixed ? [["The network alone", formatBits(chosen.predicted_bits_per_byte), `${formatBits(chosen.predicted_low)} to ${formatBits(chosen.predicted_high)}`]] : []),
      ["Model", `${formatCount(chosen.num_parameters)}`, `parameters: ${shape.num_layers} layers x ${shape.model_dim}, vocabulary ${formatCount(shape.vocab_size)}`],
      ["Reads", formatCount(chosen.expected_tokens), `tokens, ${chosen.expected_epochs.toFixed(2)} times the text`],
      ["Trains for", formatSeconds(chosen.training_seconds), `at ${formatCount(chosen.tokens_per_second)} tokens/s`],
    ]),
    h("div", { class: "card" }, h("h3", {}, isMixed ? "Forecast of the network alone over the time" : "Forecast over the time"), forecast(place),
      h("p", { class: "quiet" }, newest.forecast.length ? "Each plan adds a point. Less is better." : "Each plan adds a point; less is better. After three runs on this machine, 5 minutes, 1 hour and 8 hours are forecast at once.")),
    h("div", { class: "card" }, h("h3", {}, "Why"),
      isMeasured && measured.hours !== find("#hours-shown").textContent ? h("p", { class: "quiet" }, `This machine was measured for ${measured.hours}. Measure again before a long run.`) : "",
      h("ul", { class: "reasons" }, chosen.reasons.map((line) => h("li", {}, line))),
      chosen.alternatives.length ? table("Not taken", ["shape", ">bits per byte"], chosen.alternatives.slice(0, 4).map((one) => [one.summary, formatBits(one.predicted_bits_per_byte)])) : ""),
    ...(newest.starts.length ? [h("div", { class: "card" }, table("From a base instead of from scratch", ["base", ">untouched", ">predicted", ">from", ">to"],
      newest.starts.map((one) => [one.name, formatBits(one.untouched_bits_per_byte), formatBits(one.plan.predicted_bits_per_byte), formatBits(one.plan.predicted_low), formatBits(one.plan.predicted_high)])))] : []),
    h("p", { class: "row" }, h("a", { class: "button", href: "#train" }, "Train this"), h("span", { class: "quiet" }, `as the model ${newest.model_name}`)));
}

function forecast(place) {
  return chart(place, {
    series: [{ name: "interval", kind: "band", points }, { name: "", kind: "dashed", points }, { name: "predicted", kind: "intervals", points }],
    ticks: HOURS.filter((hours) => [0.02, 1 / 6, 1, 8, 24].includes(hours)).map((hours) => [hours, formatHours(hours)]),
    label: `Predicted bits per byte: ${points.map(([x, y]) => `${formatHours(x)} ${formatBits(y)}`).join(", ")}`,
    xName: "time of the whole run", isLog: true, height: 230,
  });
}

async function compare() {
  const job = await run({ kind: "compare" }, "Comparing machines");
  if (!job) return;
  const machines = new Map();
  for (const one of job.result.machines) machines.set(one.machine, [...(machines.get(one.machine) ?? []), one]);
  const cell = (one) => (one ? `${formatBits(one.bits_per_byte)} (${one.low.toFixed(2)}–${one.high.toFixed(2)})` : "");
  const budgets = [...new Set(job.result.machines.map((one) => one.budget))];
  find("#machines").replaceChildren(h("div", { class: "card" }, h("h3", {}, "Other machines"),
    table("Bits per byte that a time would reach, with its interval", ["machine", ...budgets.map((name) => `>${name}`)],
      [...machines.values()].map((rows) => [h("span", {}, rows[0].machine, h("span", { class: "quiet" }, ` ${rows[0].title}`)), ...budgets.map((name) => cell(rows.find((one) => one.budget === name)))])),
    h("p", { class: "quiet" }, "Rates of other machines are published or assumed (params/machines); LightLM was run on none but CPUs.")));
  announce("Compared");
}

async function listBases() {
  keep();
  const job = await runInForm(form, find("#plan-stop"), { kind: "bases" }, { showError, showLines });
  if (!job) return;
  const { bases, registered } = job.result;
  find("#starts").replaceChildren(...["scratch", "auto", ...registered, ...bases.map((one) => one.source)].map((value) => h("option", { value })));
  const use = (source) => h("button", { type: "button", class: "plain", onclick: () => {
    find("#start").value = source;
    keep();
    find("#start").focus();
  } }, "Start from it");
  find("#bases").replaceChildren(h("div", { class: "card" }, h("h3", {}, "Bases"),
    table("Models that training can start from", ["model", "where", ">parameters", ">context", "license", ""],
      [...registered.map((uri) => [uri, "registered", "", "", "", use(uri)]), ...bases.map((one) => describeBase(one, use))])));
  announce("Bases are listed");
}

function describeBase(base, use) {
  if (base.problem) return [base.source, base.place, "", "", `not usable: ${base.problem}`, ""];
  const show = (value, format) => (value === null ? "" : format(value));
  return [base.source, base.place, show(base.num_parameters, formatCount), show(base.context_length, (length) => length.toLocaleString("en-US")), base.license, use(base.source)];
}
