// What is to be trained: chosen in Text and Plan, used by Train, kept by the browser.

import { formatHours, shorten } from "./dom.js";

const KEPT = "lightlm-studio-recipe";

export const recipe = { dataset: "", text_column: "", hours: "", name: "", start: "", sample_prompt: "" };
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
  return Object.fromEntries(names.filter((name) => recipe[name]).map((name) => [name, recipe[name]]));
}

function showRecipe() {
  const hours = Number(recipe.hours);
  const shown = {
    text: shorten(recipe.dataset || defaults.dataset),
    hours: !recipe.hours ? formatHours(defaults.hours) : Number.isNaN(hours) ? recipe.hours : formatHours(hours),
    start: recipe.start || "scratch",
    name: recipe.name || "after the data set",
  };
  for (const [name, value] of Object.entries(shown)) {
    for (const place of document.querySelectorAll(`.shown-${name}`)) place.textContent = value;
  }
}
