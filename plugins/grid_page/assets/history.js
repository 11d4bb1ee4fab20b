// The table of runs over time, which is asked for when it is opened.

import { byId, count, duration, link, make } from "./elements.js";
import { ask } from "./requests.js";

const COLUMNS = ["Started (UTC)", "Dag run", "Run", "State", "Took", "Images", "Kept", "Documents", "Images per second",
  "Retries", "Waits"];

const figure = (number) => make("td", { class: "figure" }, number === null ? "" : count(Math.round(number)));

function row(one) {
  return make("tr", {},
    make("td", {}, one.started.slice(0, 16).replace("T", " ")),
    make("td", {}, link(one.link, `${one.dag}, ${one.dag_run}`)),
    make("td", {}, one.runs.join(", ")),
    make("td", {}, one.state),
    make("td", { class: "figure" }, one.seconds === null ? "" : duration(one.seconds)),
    ...[one.images, one.kept, one.documents, one.images_per_second, one.retries, one.waits].map(figure));
}

async function show() {
  const history = byId("history");
  if (!history.open) return;
  const place = byId("dag-runs");
  try {
    const found = await ask("api/history");
    const end = found.known > found.dag_runs.length
      ? `The latest ${found.dag_runs.length} of ${count(found.known)}; Airflow's list of Dag runs has the others.` : "";
    place.replaceChildren(
      make("table", {},
        make("thead", {}, make("tr", {}, ...COLUMNS.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, ...found.dag_runs.map(row))),
      make("p", {}, end));
  } catch (error) {
    place.textContent = error.message;
  }
}

export const showHistory = () => byId("history").addEventListener("toggle", show);
