// The grid itself: one cell per block; each shard starts a new row. One cell at a time has the keyboard's focus.

import { make } from "./elements.js";

export const LOOKS = {
  unknown: { glyph: "", name: "not read yet" },
  planned: { glyph: "·", name: "planned" },
  embedded: { glyph: "◔", name: "embedded" },
  scoring: { glyph: "…", name: "scoring" },
  scored: { glyph: "◐", name: "scored" },
  indexing: { glyph: "↑", name: "indexing" },
  verified: { glyph: "✓", name: "verified" },
  unreadable: { glyph: "?", name: "verified, with unreadable images" },
  missing: { glyph: "≠", name: "missing in Solr" },
  failed: { glyph: "✕", name: "failed" },
};

const LONGEST_ROW = 50; // blocks; a longer shard continues in the next row

export class Cells {
  constructor(grid, { onopen, onselect }) {
    this.grid = grid;
    this.onopen = onopen;
    this.onselect = onselect;
    this.cells = [];
    this.chosen = new Set();
    grid.addEventListener("keydown", (event) => this.press(event));
    grid.addEventListener("pointerdown", (event) => this.point(event));
    grid.addEventListener("pointerover", (event) => event.buttons === 1 && this.drag(event));
    grid.addEventListener("click", (event) => this.click(event));
  }

  // Lay out the cells of a run.
  shape(shards, width) {
    this.width = width;
    this.cells = [];
    this.rows = [];
    this.current = this.anchor = 0;
    for (let block = 0; block < shards * width; block += 1) {
      const column = (block % width) % LONGEST_ROW;
      if (!column) this.rows.push([]);
      const cell = make("span", { role: "gridcell", tabindex: block ? -1 : 0 });
      Object.assign(cell, { block, column, row: this.rows.length - 1 });
      this.cells.push(cell);
      this.rows.at(-1).push(cell);
    }
    this.grid.replaceChildren(...this.rows.map((cells) => {
      const [{ block }] = cells;
      const header = make("span", { role: "rowheader" }, block % width ? "" : `${block / width}`);
      return make("div", { role: "row" }, header, ...cells);
    }));
    this.grid.setAttribute("aria-rowcount", this.rows.length);
    this.cells.forEach((_, block) => this.show(block, "unknown"));
    this.choose([]);
  }

  show(block, state) {
    const cell = this.cells[block];
    if (!cell) return;
    cell.dataset.state = state;
    cell.setAttribute("aria-label", `Block ${block}, shard ${Math.floor(block / this.width)}: ${LOOKS[state].name}`);
    cell.title = `Block ${block}: ${LOOKS[state].name}`;
    cell.textContent = LOOKS[state].glyph;
  }

  // Select the rectangle between two blocks.
  rectangle(from, to) {
    const ends = [this.cells[from], this.cells[to]];
    const [top, bottom] = ends.map(({ row }) => row).sort((a, b) => a - b);
    const [left, right] = ends.map(({ column }) => column).sort((a, b) => a - b);
    const rows = this.rows.slice(top, bottom + 1);
    this.choose(rows.flatMap((cells) => cells.slice(left, right + 1)).map(({ block }) => block));
  }

  choose(blocks) {
    const chosen = new Set(blocks);
    for (const block of this.chosen) if (!chosen.has(block)) this.cells[block]?.removeAttribute("aria-selected");
    for (const block of chosen) this.cells[block].setAttribute("aria-selected", "true");
    this.chosen = chosen;
    this.onselect(chosen);
  }

  focus(block) {
    this.cells[this.current].tabIndex = -1;
    this.current = block;
    this.cells[block].tabIndex = 0;
    this.cells[block].focus();
  }

  press(event) {
    const last = this.cells.length - 1;
    const { row, column } = this.cells[this.current];
    const moves = {
      ArrowLeft: this.current - 1,
      ArrowRight: this.current + 1,
      ArrowUp: this.at(row - 1, column),
      ArrowDown: this.at(row + 1, column),
      Home: event.ctrlKey ? 0 : this.at(row, 0),
      End: event.ctrlKey ? last : this.at(row, LONGEST_ROW),
      PageUp: this.at(Math.max(row - 10, 0), column),
      PageDown: this.at(Math.min(row + 10, this.rows.length - 1), column),
    };
    if (event.key in moves) {
      event.preventDefault();
      const block = moves[event.key];
      if (!(block in this.cells)) return;
      this.focus(block);
      this.extend(event.shiftKey);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.onopen(this.current);
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.choose(this.cells.keys());
    }
  }

  // The block at a position, or the last one of a shorter row; undefined above the first row and below the last.
  at(row, column) {
    const cells = this.rows[row];
    return cells?.[Math.min(column, cells.length - 1)].block;
  }

  extend(isOn) {
    if (isOn) {
      this.rectangle(this.anchor, this.current);
      return;
    }
    this.anchor = this.current;
    if (this.chosen.size) this.choose([]);
  }

  point(event) {
    const { block } = event.target;
    if (block === undefined || event.button !== 0) return;
    this.focus(block);
    this.extend(event.shiftKey);
  }

  drag(event) {
    const { block } = event.target;
    if (block === undefined || block === this.current) return;
    this.focus(block);
    this.rectangle(this.anchor, block);
  }

  click(event) {
    const { block } = event.target;
    if (block !== undefined && !event.shiftKey && !this.chosen.size) this.onopen(block);
  }
}
