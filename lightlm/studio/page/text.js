// Text: files are uploaded, a data set is named, and `lightlm look` shows what would be read of it.

import { CallError, post, runInForm, send } from "./api.js";
import { announce, find, formatBytes, h, showError, showLines, table, tiles } from "./dom.js";
import { READING, change, choose, recipe } from "./recipe.js";

const MOST_FILES = 2000;
const form = find("#text-form");
let uploading = null;

export function openText() {
  find("#dataset").value = recipe.dataset;
  find("#column").value = recipe.text_column;
  find("#mask").checked = recipe.mask;
  if (!find("#others").children.length) find("#others").replaceChildren(...recipe.others.map(drawOther));
}

/** Return the fields of a further text. */
function drawOther(one = { dataset: "", weight: "auto" }) {
  const row = h("div", { class: "fields other" },
    h("div", { class: "wide" }, h("label", {}, "Data set", h("input", { class: "other-text", autocomplete: "off", spellcheck: "false" }))),
    h("div", {}, h("label", {}, "Weight", h("input", { class: "other-weight", autocomplete: "off", spellcheck: "false", list: "weights" }))),
    h("div", {}, h("button", { type: "button", onclick: () => { row.remove(); keep(); find("#add-text").focus(); } }, "Remove")));
  find(".other-text", row).value = one.dataset;
  find(".other-weight", row).value = one.weight;
  row.addEventListener("change", keep);
  return row;
}

/** Take what the form says is read. */
function keep() {
  const others = [...find("#others").children].map((row) => ({
    dataset: find(".other-text", row).value.trim(), weight: find(".other-weight", row).value.trim() || "auto",
  }));
  find("#look").replaceChildren(); // it is of other texts
  change({
    dataset: find("#dataset").value.trim(), text_column: find("#column").value.trim(),
    others: others.filter((one) => one.dataset), mask: find("#mask").checked,
  });
}

export function startText(state) {
  find("#dataset").placeholder = state.dataset;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    look();
  });
  find("#dataset").addEventListener("input", () => find("#look").replaceChildren()); // it is of another text
  for (const name of ["dataset", "column", "mask"]) find(`#${name}`).addEventListener("change", keep);
  find("#add-text").addEventListener("click", () => {
    find("#others").append(drawOther());
    find("#others").lastChild.querySelector("input").focus();
  });
  for (const name of ["#pick-files", "#pick-folder"]) {
    find(name).addEventListener("change", async (event) => {
      const files = [...event.target.files].map((file) => [file.webkitRelativePath || file.name, file]);
      event.target.value = "";
      await upload(files);
    });
  }
  const drop = find("#drop");
  for (const kind of ["dragover", "dragenter"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    await upload((await Promise.all(entries.map((entry) => listFiles(entry)))).flat());
  });
}

/** Return [path, file] of all files of a dropped entry. */
async function listFiles(entry, above = "") {
  if (entry.name.startsWith(".")) return [];
  const path = above ? `${above}/${entry.name}` : entry.name;
  if (entry.isFile) return [[path, await new Promise((resolve, reject) => entry.file(resolve, reject))]];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a browser gives them a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map((one) => listFiles(one, path)))).flat();
}

async function upload(files) {
  if (!files.length || uploading) return;
  showError(form, "");
  uploading = files;
  const state = find("#upload-state");
  try {
    if (files.length > MOST_FILES) {
      throw new CallError(`these are ${files.length.toLocaleString("en-US")} files, an upload takes ${MOST_FILES.toLocaleString("en-US")}; give the folder's path below`);
    }
    // A folder's own name is the upload's; its files keep the names below it.
    const tops = new Set(files.map(([path]) => path.split("/")[0]));
    const isFolder = tops.size === 1 && files[0][0].includes("/");
    const top = [...tops][0];
    const label = isFolder ? top : top.replace(/(\.[^.]*)+$/, "") || top;
    const { upload: number } = await post("/api/uploads", { label });
    let source = "";
    let done = 0;
    for (const [path, file] of files) {
      state.textContent = `Uploading ${++done} of ${files.length}: ${path}`;
      const name = isFolder ? path.split("/").slice(1).join("/") : path;
      const safe = name.replace(/[\r\n]/g, "_").split("/").map(encodeURIComponent).join("/");
      ({ source } = await (await send("PUT", `/api/uploads/${number}/${safe}`, file)).json());
    }
    const total = files.reduce((sum, [, file]) => sum + file.size, 0);
    state.textContent = `${files.length === 1 ? files[0][0] : `${files.length} files`}, ${formatBytes(total)}`;
    // An upload is the first text, unless a further one was added and is still without a name.
    const empty = [...document.querySelectorAll(".other-text")].find((one) => !one.value.trim());
    if (empty) empty.value = source;
    else {
      find("#dataset").value = source;
      find("#column").value = "";
      change({ name: "" });
    }
    await look();
  } catch (error) {
    state.textContent = "";
    showError(form, error.message);
  } finally {
    uploading = null;
  }
}

async function look() {
  keep();
  const place = find("#look");
  announce("Reading the text");
  const request = { kind: "look", ...choose(...READING) };
  const job = await runInForm(form, find("#text-stop"), request, { showError, showLines });
  if (!job) return;
  place.replaceChildren(...showLook(job.result));
  announce(`Read: ${job.result.documents} documents`);
}

/** Return the figure of the languages, the most frequent one large; none where they are not known. */
function nameLanguages(languages) {
  const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
  const shares = Object.entries(languages ?? {}).map(([code, share]) => [code.length > 3 ? code : names.of(code), `${(100 * share).toFixed(0)} %`]);
  if (!shares.length) return [];
  const [[name, share], ...rest] = shares;
  return [["Languages", name, [share, ...rest.slice(0, 3).map((one) => one.join(" "))].join(", ")]];
}

function showLook(found) {
  const total = found.train_bytes + found.validation_bytes;
  const copies = found.exact_duplicates + found.near_duplicates;
  const parts = [
    h("h2", {}, found.name),
    tiles([
      ["Documents", found.documents.toLocaleString("en-US"), found.is_partial ? "of the part that was read" : ""],
      ["To train on", formatBytes(found.train_bytes)],
      ["Held out", formatBytes(found.validation_bytes), `${((100 * found.validation_bytes) / Math.max(1, total)).toFixed(1)} %`],
      ["Copies left out", copies.toLocaleString("en-US"), `${found.exact_duplicates.toLocaleString("en-US")} exact, ${found.near_duplicates.toLocaleString("en-US")} near`],
      ["Encodings", Object.keys(found.encodings).join(", ") || "utf-8", found.replaced_bytes ? `${found.replaced_bytes} bytes replaced` : ""],
      ...nameLanguages(found.quality.languages),
      ["Files not read", found.left_out.length.toLocaleString("en-US")],
    ]),
    ...found.quality.findings.filter((line) => !line.startsWith("languages: ")).map((line) => h("p", {}, `${line.charAt(0).toUpperCase()}${line.slice(1)}.`)),
    ...found.warnings.map((line) => h("p", { class: "warning" }, line)),
    h("p", {}, `Held out: ${found.split}.`),
    found.notes.length ? h("ul", { class: "reasons" }, found.notes.map((line) => h("li", {}, line))) : "",
  ];
  const sections = [];
  if (found.others?.length) {
    parts.push(h("h3", {}, "Further texts"), table("What is mixed in, by its weight", ["text", "weight", ">documents", ">to train on", ">held out"],
      found.others.map((one) => [one.name, String(one.weight), one.documents.toLocaleString("en-US"), formatBytes(one.train_bytes), formatBytes(one.validation_bytes)])));
  }
  if (found.sources.length) {
    sections.push(h("details", { class: "card", open: found.sources.length <= 8 }, h("summary", {}, `Files (${found.sources.length})`),
      table("How each file was read", ["file", "kind", "split", "encoding", "column", ">documents", ">size", "used"],
        found.sources.slice(0, 200).map((row) => [row.path, row.kind, row.split, row.encoding, row.column ?? "", row.documents.toLocaleString("en-US"), formatBytes(row.bytes), row.used ? "yes" : "no"]))));
  }
  if (found.left_out.length) {
    sections.push(h("details", { class: "card" }, h("summary", {}, `Left out (${found.left_out.length})`),
      table("Why these files were not read", ["file", "reason"], found.left_out.slice(0, 200).map((row) => [row.path, row.reason]))));
  }
  sections.push(h("div", { class: "card" }, h("h3", {}, "How it reads"), found.examples.map((example) =>
    h("div", {}, h("p", { class: "quiet" }, `${example.place}, ${formatBytes(example.bytes)}${example.why ? `; ${example.why}` : ""}`),
      h("blockquote", {}, example.text)))));
  return [...parts, ...sections, h("p", { class: "row" }, h("a", { class: "button", href: "#plan" }, "Plan with this text"))];
}
