// The page: which run it shows, when it asks the server for news, and what the user can do.

import { BlockPanel } from "./block.js";
import { Cells, LOOKS } from "./cells.js";
import { blockNumbers, byId, confirmed, count, duration, link, make } from "./elements.js";
import { showHistory } from "./history.js";
import { act, ask } from "./requests.js";

const PAUSE = 3000; // between two requests, in milliseconds
const LONGEST_PAUSE = 30000; // while the server does not answer
const RUNS_EVERY = 30000;

let states = [];
let run = null; // the run that is shown
let chosen = null; // the name of the run to show, which may not have arrived yet
let mayTrigger = false;
let mark = "";
let revision = 0;
let timer = 0;
let pause = PAUSE;
let askedForRuns = 0;
let named = new URLSearchParams(location.search).get("block") ?? ""; // the block to open first

const cells = new Cells(byId("grid"), { onopen: (block) => open(block), onselect: showSelection });
const panel = new BlockPanel(byId("block"), { onclear: clearBlock, onact: actOn, onclose: close });

async function showRuns() {
  const address = new URLSearchParams(location.search);
  const query = new URLSearchParams({ dag: address.get("dag") ?? "", dag_run: address.get("dag_run") ?? "" });
  const found = await ask(`api/runs?${query}`);
  askedForRuns = Date.now();
  states = found.states;
  mayTrigger = found.may_trigger;
  const wanted = chosen ?? (found.of_dag_run || address.get("run") || found.runs[0]?.name);
  const options = found.runs.map((one) =>
    make("option", { value: one.name }, `${one.name} (${one.corpus}, ${one.created.slice(0, 16).replace("T", " ")})`));
  if (wanted && !found.runs.some(({ name }) => name === wanted)) options.push(make("option", { value: wanted }, wanted));
  if (found.known > found.runs.length) {
    options.push(make("option", { disabled: true },
      `the latest ${found.runs.length} of ${count(found.known)}; for an older one, open the tab Blocks of its Dag run`));
  }
  if (found.damaged.length) {
    options.push(make("option", { disabled: true },
      `${count(found.damaged.length)} with a damaged record: tinytags runs names the remedy`));
  }
  byId("runs").replaceChildren(...options);
  byId("runs").value = wanted;
  const { live } = found;
  byId("live").textContent = live.problem
    ?? (live.collections.length
      ? `Live under ${live.alias}: ${live.collections.map(describeLive).join("; ")}`
      : `Nothing is live under ${live.alias}`);
  if (!found.runs.length) byId("about").textContent = "No run has been planned yet.";
  else if (address.get("dag_run") && !found.of_dag_run && !run) {
    byId("outcome").textContent = "This Dag run has not planned a run yet; the latest run is shown instead.";
  }
  return wanted;
}

function describeLive({ collection, corpus, model }) {
  return collection + (model ? `, corpus ${corpus}, tagged by ${model}` : ", which belongs to no run");
}

async function showRun(name) {
  if (!name || (name === chosen && name === run?.name)) return;
  chosen = name;
  let found;
  try {
    found = await ask(`api/runs/${encodeURIComponent(name)}`);
  } catch (error) {
    if (chosen === name) chosen = run?.name ?? null;
    throw error;
  }
  if (name !== chosen || name === run?.name) return; // another run was chosen meanwhile, or this one has arrived already
  run = { ...found.run, has_none: found.has_none };
  [mark, revision] = ["", 0];
  close();
  byId("about").replaceChildren(
    `${run.corpus}, ${count(run.images)} images, tagged by `,
    link(`api/runs/${encodeURIComponent(run.name)}/report`, run.model),
    `, confidence from ${run.threshold} %; ${run.description}`,
  );
  cells.shape(found.shards, found.blocks_per_shard);
}

async function showCells() {
  const shown = run;
  const query = new URLSearchParams({ mark, since: revision });
  const found = await ask(`api/runs/${encodeURIComponent(run.name)}/cells?${query}`);
  if (shown !== run) return true; // the user has chosen another run meanwhile
  if (found.is_whole && mark) cells.cells.forEach((_, block) => cells.show(block, "unknown"));
  found.blocks.forEach((block, at) => cells.show(block, states[found.states[at]]));
  [mark, revision] = [found.mark, found.revision];
  if (found.blocks.includes(panel.block)) open(panel.block);
  showProgress(found);
  showLegend(found.counts);
  showProblems(found.problems);
  return found.read === run.blocks;
}

function showProgress({ counts, totals, rates, read }) {
  const verified = (counts.verified ?? 0) + (counts.unreadable ?? 0);
  byId("bar").value = verified / Math.max(run.blocks, 1);
  const reading = read < run.blocks ? `; reading the ledger: ${count(read)}` : "";
  byId("verified").textContent = `${count(verified)} of ${count(run.blocks)} blocks${reading}`;
  byId("images-rate").textContent = count(Math.round(rates.images_per_second));
  byId("documents-rate").textContent = count(Math.round(rates.documents_per_second));
  byId("left").textContent = duration(rates.seconds_left);
  byId("read").textContent = `${count(totals.read)} images`;
  byId("kept").textContent = `${count(totals.kept)}, ${count(totals.documents)} documents`;
  byId("below").textContent = count(totals.below);
  byId("with-none").hidden = !run.has_none && !totals.none;
  byId("none").textContent = count(totals.none);
  byId("unreadable").textContent = count(totals.unreadable);
  byId("with-taken-down").hidden = !totals.taken_down;
  byId("taken-down").textContent = count(totals.taken_down);
  const byTag = Object.entries(totals.kept_by_tag).sort((a, b) => b[1] - a[1]);
  byId("by-tag").replaceChildren(...byTag.map(([tag, kept]) =>
    make("li", {}, `${tag} `, make("meter", { min: 0, max: byTag[0][1], value: kept, "aria-hidden": "true" }), ` ${count(kept)}`)));
}

function showLegend(counts) {
  byId("legend").replaceChildren(...states.filter((state) => state !== "unknown" || counts.unknown).map((state) =>
    make("li", {}, make("span", { class: "swatch", "data-state": state, "aria-hidden": "true" }, LOOKS[state].glyph),
      `${LOOKS[state].name} ${count(counts[state] ?? 0)}`)));
}

function showProblems(problems) {
  const list = byId("problems");
  const shown = [...list.children].map((item) => item.textContent);
  if (shown.join("\n") === problems.join("\n")) return; // otherwise a screen reader would announce them every few seconds
  list.replaceChildren(...problems.map((problem) => make("li", {}, problem)));
}

function showSelection(blocks) {
  byId("selected").textContent = blocks.size ? `${count(blocks.size)} blocks selected` : "";
  for (const id of ["backfill-selected", "delete-selected"]) byId(id).disabled = !blocks.size || !mayTrigger;
}

// Ask, show, wait, repeat; a hidden page does not ask.
async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  let wait = PAUSE;
  try {
    if (!run || Date.now() - askedForRuns > RUNS_EVERY) {
      const wanted = await showRuns();
      if (!run) {
        await showRun(wanted);
        openNamed();
      }
    }
    if (run && !(await showCells())) wait = 0;
    pause = PAUSE;
  } catch (error) {
    showProblems([error.message]);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
    wait = pause;
  }
  clearTimeout(timer);
  timer = setTimeout(poll, wait);
}

async function open(block) {
  try {
    await panel.open(run, block, mayTrigger);
  } catch (error) {
    byId("outcome").textContent = error.message;
  }
}

function openNamed() {
  if (/^\d+$/.test(named) && run && Number(named) < run.blocks) open(Number(named));
  named = "";
}

function close() {
  if (panel.block !== null) cells.focus(panel.block);
  panel.close();
}

async function clearBlock(block) {
  const isConfirmed = await confirmed(`Clear the task of block ${block}?`,
    "Airflow runs the task again, including its other blocks and everything after it. Finished work is not repeated.",
    "Clear");
  if (isConfirmed) await request(`api/runs/${encodeURIComponent(run.name)}/blocks/${block}/clear`);
}

async function actOn(action, blocks) {
  const names = blockNumbers(blocks);
  const [question, consequence, verb] = action === "backfill"
    ? [`Backfill ${blocks.length} blocks of run ${run.name}?`,
      `A new Dag run redoes these blocks: ${names}`, "Backfill"]
    : [`Delete the documents of ${blocks.length} blocks of run ${run.name}?`,
      `If the run is live, readers will not find the images of these blocks: ${names}`, "Delete"];
  if (await confirmed(question.replace("1 blocks", "1 block"), consequence, verb)) {
    await request(`api/runs/${encodeURIComponent(run.name)}/actions`, { action, blocks: names });
  }
}

async function request(path, body) {
  const outcome = byId("outcome");
  outcome.textContent = "Waiting for Airflow…";
  try {
    const done = await act(path, body);
    outcome.replaceChildren(`${done.message}. `, link(done.link, "Open the Dag run"));
    poll();
  } catch (error) {
    outcome.textContent = `Failed: ${error.message}`;
  }
}

showHistory();
byId("runs").addEventListener("change", async (event) => {
  try {
    await showRun(event.target.value);
  } catch (error) {
    showProblems([error.message]);
  }
  poll();
});
byId("size").addEventListener("input", (event) => {
  byId("grid").style.setProperty("--cell", `${event.target.value}px`);
});
byId("backfill-selected").addEventListener("click", () => actOn("backfill", [...cells.chosen]));
byId("delete-selected").addEventListener("click", () => actOn("delete", [...cells.chosen]));
document.addEventListener("visibilitychange", poll);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !byId("confirm").open) close();
});
poll();
