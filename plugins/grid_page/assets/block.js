// The panel of one block: its record, its task, its images, and what can be done to it.

import { count, link, make } from "./elements.js";
import { LOOKS } from "./cells.js";
import { ask } from "./requests.js";

const PAGE = 24;

// The record's figures, in the order in which they arise.
const FIELDS = [
  ["read", "Images read"],
  ["kept", "Kept"],
  ["below", "Below the threshold"],
  ["none", "None of the tags"],
  ["unreadable", "Unreadable"],
  ["taken_down", "Taken down"],
  ["corrected", "Tag from a person"],
  ["corrections", "Corrected up to request"],
  ["documents", "Documents posted"],
  ["attempts", "Tries"],
  ["embed_seconds", "Seconds to embed"],
  ["score_seconds", "Seconds to score"],
  ["index_seconds", "Seconds to index"],
  ["scored", "Scored at"],
  ["indexed", "Indexed at"],
  ["host", "Host"],
  ["model", "Model"],
  ["sha256", "SHA-256 of its bytes"],
];

// Figures that are shown only if they are not 0.
const IF_ANY = ["taken_down", "corrected", "corrections", "embed_seconds"];

export class BlockPanel {
  constructor(panel, { onclear, onact, onclose }) {
    this.panel = panel;
    this.handlers = { onclear, onact, onclose };
    this.block = null;
  }

  close() {
    this.panel.hidden = true;
    this.panel.replaceChildren();
    this.block = null;
  }

  async open(run, block, mayTrigger) {
    this.block = block;
    const path = `api/runs/${encodeURIComponent(run.name)}`;
    const cell = await ask(`${path}/blocks/${block}`);
    if (this.block !== block) return; // another block was opened meanwhile
    const images = make("div", { class: "images", "aria-live": "polite" }, make("p", {}, "Loading images…"));
    this.panel.replaceChildren(
      make("button", { type: "button", class: "close", onclick: this.handlers.onclose, "aria-label": "Close" }, "✕"),
      make("h2", { tabindex: -1 }, `Block ${block}`),
      make("p", { class: "state" }, make("span", { class: "swatch", "data-state": cell.state }, LOOKS[cell.state].glyph),
        LOOKS[cell.state].name),
      ...(cell.record.reason ? [make("p", { class: "reason" }, cell.record.reason)] : []),
      this.task(cell.task),
      this.buttons(block, cell, mayTrigger),
      images,
      this.figures(cell, run.has_none),
    );
    this.panel.hidden = false;
    await this.images(images, path, block, 0);
  }

  task(task) {
    if (!task) return make("p", {}, "No Airflow task has worked on this block.");
    return make("p", {}, `Task: ${task.state}, try ${task.attempt} `, link(task.log, "Log"));
  }

  buttons(block, cell, mayTrigger) {
    const button = (text, isAllowed, onclick) =>
      make("button", { type: "button", disabled: !isAllowed, onclick, title: isAllowed ? "" : "You are not allowed to do this" }, text);
    return make("p", { class: "buttons" },
      button("Clear its task…", cell.may_clear, () => this.handlers.onclear(block)),
      button("Backfill…", mayTrigger, () => this.handlers.onact("backfill", [block])),
      button("Delete from index…", mayTrigger, () => this.handlers.onact("delete", [block])));
  }

  figures(cell, hasNone) {
    const { record } = cell;
    const isShown = (field) => record[field] !== null && record[field] !== ""
      && (field !== "none" || hasNone || record.none) && (record[field] || !IF_ANY.includes(field));
    const known = FIELDS.filter(([field]) => isShown(field));
    const rows = known.map(([field, name]) => {
      const value = record[field];
      return [name, typeof value === "number" ? count(value) : value];
    });
    if (cell.documents_in_solr !== null) rows.push(["Documents in Solr now", count(cell.documents_in_solr)]);
    for (const [tag, kept] of Object.entries(record.kept_by_tag)) rows.push([`Kept as ${tag}`, count(kept)]);
    return make("dl", {}, ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  }

  async images(box, path, block, start) {
    let page;
    try {
      page = await ask(`${path}/blocks/${block}/images?start=${start}`);
    } catch (error) {
      box.replaceChildren(make("p", { class: "reason" }, error.message));
      return;
    }
    const pictures = page.images.map((image) => {
      const picture = image.missing
        ? make("span", { class: "no-picture", title: image.missing, role: "img", "aria-label": image.missing }, "✕")
        : make("img", { src: `${path}/images/${image.position}.png`, alt: image.label, width: 64, height: 64 });
      return make("li", { title: image.details }, picture, make("span", {}, image.label));
    });
    const turn = (text, to, isThere) =>
      make("button", { type: "button", disabled: !isThere, onclick: () => this.images(box, path, block, to) }, text);
    const end = start + page.images.length;
    box.replaceChildren(
      make("p", {}, page.total ? `Images ${count(start + 1)} to ${count(end)} of ${count(page.total)}` : "No images"),
      make("ul", {}, ...pictures),
      make("p", { class: "buttons" },
        turn("Previous", start - PAGE, start > 0), turn("Next", start + PAGE, end < page.total)),
    );
  }
}
