// The grid itself: a row a shard, a cell a block. One cell at a time takes the keyboard's focus.

import { make } from "./elements.js";

export const LOOKS = {
  unknown: { glyph: "", name: "not read yet" },
  planned: { glyph: "·", name: "planned" },
  scoring: { glyph: "…", name: "scoring" },
  scored: { glyph: "◐", name: "scored" },
  indexing: { glyph: "↑", name: "indexing" },
  verified: { glyph: "✓", name: "verified" },
  unreadable: { glyph: "?", name: "verified, with unreadable images" },
  missing: { glyph: "≠", name: "missing in Solr" },
  failed: { glyph: "✕", name: "failed" },
};

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

  // Lay out a run's cells anew.
  shape(shards, width) {
    this.width = width;
    this.cells = [];
    this.current = this.anchor = 0;
    const rows = [];
    for (let shard = 0; shard < shards; shard += 1) {
      const row = make("div", { role: "row" }, make("span", { role: "rowheader" }, `${shard}`));
      for (let column = 0; column < width; column += 1) {
        const cell = make("span", { role: "gridcell", tabindex: this.cells.length ? -1 : 0 });
        cell.block = this.cells.length;
        this.cells.push(cell);
        row.append(cell);
      }
      rows.push(row);
    }
    this.grid.replaceChildren(...rows);
    this.grid.setAttribute("aria-rowcount", shards);
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
    const [top, bottom] = [from, to].map((block) => Math.floor(block / this.width)).sort((a, b) => a - b);
    const [left, right] = [from, to].map((block) => block % this.width).sort((a, b) => a - b);
    const blocks = [];
    for (let row = top; row <= bottom; row += 1) {
      for (let column = left; column <= right; column += 1) blocks.push(row * this.width + column);
    }
    this.choose(blocks);
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
    const start = this.current - (this.current % this.width);
    const moves = {
      ArrowLeft: this.current - 1,
      ArrowRight: this.current + 1,
      ArrowUp: this.current - this.width,
      ArrowDown: this.current + this.width,
      Home: event.ctrlKey ? 0 : start,
      End: event.ctrlKey ? last : start + this.width - 1,
      PageUp: Math.max(this.current - 10 * this.width, this.current % this.width),
      PageDown: Math.min(this.current + 10 * this.width, last - (this.width - 1) + (this.current % this.width)),
    };
    if (event.key in moves) {
      event.preventDefault();
      const block = moves[event.key];
      if (block < 0 || block > last) return;
      this.focus(block);
      this.extend(event.shiftKey);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.onopen(this.current);
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.rectangle(0, last);
    }
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
