// The page: login, navigation, and the five views.

import { get, hasToken, logIn, logOut, onLoggedOut } from "./api.js";
import { find, showError } from "./dom.js";
import { openPlan, startPlan } from "./plan.js";
import { loadRecipe } from "./recipe.js";
import { openText, startText } from "./text.js";
import { closeTrain, openTrain, startTrain } from "./train.js";
import { openVersions, startVersions } from "./versions.js";
import { openWrite, startWrite } from "./write.js";

const VIEWS = { text: openText, plan: openPlan, train: openTrain, write: openWrite, versions: openVersions };
let isStarted = false;

function showLogin(message = "") {
  closeTrain();
  find("#studio").hidden = true;
  find("#login").hidden = false;
  const place = find("#login-error");
  place.hidden = !message;
  place.textContent = message;
  find("#login-key").focus();
}

async function enter() {
  const state = await get("/api/state");
  find("#login").hidden = true;
  find("#studio").hidden = false;
  find("#about").textContent = `${state.version}, ${state.home.replace(/(.)([/\\])/g, "$1$2\u200b")}`; // may break there
  loadRecipe(state);
  if (!isStarted) {
    isStarted = true;
    startText(state);
    startPlan();
    startTrain(state);
    startWrite(state);
    startVersions();
  }
  navigate(false);
}

function navigate(isMoved = true) {
  const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "text";
  for (const one of Object.keys(VIEWS)) find(`#view-${one}`).hidden = one !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = find(`#${name}-title`);
  document.title = `${title.textContent} – LightLM studio`;
  if (name !== "train") closeTrain();
  VIEWS[name]();
  if (isMoved) {
    title.focus();
    window.scrollTo(0, 0);
  }
}

async function begin() {
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  if (ticket) {
    history.replaceState(null, "", location.pathname); // a link in the history is of no use
    try {
      await logIn({ ticket });
    } catch (error) {
      if (!hasToken()) {
        showLogin(error.message);
        return;
      }
    }
  }
  if (!hasToken()) {
    showLogin();
    return;
  }
  await enter().catch((error) => showLogin(error.message));
}

onLoggedOut(() => showLogin("The session has ended. Give the key, or open a new link."));
window.addEventListener("hashchange", () => {
  if (location.hash === "#main" || find("#studio").hidden) return;
  navigate();
});
find("#login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await logIn({ key: find("#login-key").value });
    find("#login-key").value = "";
    await enter();
  } catch (error) {
    showLogin(error.message);
  }
});
find("#logout").addEventListener("click", async () => {
  await logOut().catch((error) => showError(find("main"), error.message));
  showLogin();
});
begin();
