// What is to be trained: chosen in Text and Plan, used by Train, kept by the browser.

import { formatHours, shorten } from "./dom.js";

const KEPT = "lightlm-studio-recipe";

export const recipe = { dataset: "", text_column: "", others: [], mask: false, hours: "", name: "", start: "", sample_prompt: "" };

/** Fields that say what is read. */
export const READING = ["dataset", "text_column", "others", "mask"];
let defaults = { dataset: "", hours: 0 };

/** Begin with what was chosen last. */
export function loadRecipe(state) {
  defaults = state;
  try {
    Object.assign(recipe, JSON.parse(localStorage.getItem(KEPT) ?? "{}"));
  } catch {
    localStorage.removeItem(KEPT);
  }
  showRecipe();
}

export function change(values) {
  Object.assign(recipe, values);
  localStorage.setItem(KEPT, JSON.stringify(recipe));
  showRecipe();
}

export const defaultHours = () => defaults.hours;

/** Return the fields that a command takes; those that are empty are the command's own. */
export function choose(...names) {
  const isGiven = (name) => (name === "others" ? recipe.others.length : recipe[name]);
  return Object.fromEntries(names.filter(isGiven).map((name) => [name, recipe[name]]));
}

function describeTexts() {
  const others = recipe.others.map((one) => `${shorten(one.dataset)} (${one.weight})`);
  return [shorten(recipe.dataset || defaults.dataset), ...others].join(", ") + (recipe.mask ? "; personal data masked" : "");
}

function showRecipe() {
  const hours = Number(recipe.hours);
  const shown = {
    text: describeTexts(),
    hours: !recipe.hours ? formatHours(defaults.hours) : Number.isNaN(hours) ? recipe.hours : formatHours(hours),
    start: recipe.start || "scratch",
    name: recipe.name || "after the data set",
  };
  for (const [name, value] of Object.entries(shown)) {
    for (const place of document.querySelectorAll(`.shown-${name}`)) place.textContent = value;
  }
}
