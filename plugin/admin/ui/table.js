import { el, keyed, setText } from "./dom.js";

// A table whose rows are walked with the arrow keys: one of them is in the order of focus (roving tabindex).
export class Table {
  constructor(place, caption, columns) {
    this.columns = columns;
    this.body = el("tbody", { onkeydown: (event) => this.walk(event), onfocusin: (event) => this.rove(event) });
    const heads = columns.map((one) => el("th", { scope: "col", class: one.number ? "number" : one.kind }, one.title));
    this.empty = el("p", { class: "quiet" });
    place.append(el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...heads)), this.body), this.empty);
  }

  show(rows, keyOf, emptyText) {
    keyed(this.body, rows, keyOf, () => this.row(), (row, item) => this.fill(row, item));
    if (!this.body.querySelector("[tabindex='0']") && this.body.firstElementChild) this.body.firstElementChild.tabIndex = 0;
    this.empty.hidden = rows.length > 0;
    setText(this.empty, rows.length ? "" : emptyText);
  }

  row() {
    const cells = this.columns.map((one) => el("td", { "data-label": one.title, class: one.number ? "number" : null }));
    return el("tr", { tabindex: "-1" }, ...cells);
  }

  fill(row, item) {
    this.columns.forEach((column, i) => {
      const cell = row.children[i];
      if (column.fill) column.fill(cell, item);
      else {
        const text = column.text(item);
        setText(cell, text);
        cell.classList.toggle("nothing", text === "–");
      }
    });
  }

  walk(event) {
    const row = event.target.closest("tr");
    const moves = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling,
      Home: this.body.firstElementChild, End: this.body.lastElementChild };
    if (event.target !== row || !(event.key in moves)) return;
    event.preventDefault();
    moves[event.key]?.focus();
  }

  rove(event) {
    const row = event.target.closest("tr");
    for (const one of this.body.querySelectorAll("tr[tabindex='0']")) one.tabIndex = -1;
    if (row) row.tabIndex = 0;
  }
}

export class Pager {
  constructor(place, size, changed) {
    this.size = size;
    this.page = 0;
    this.changed = changed;
    this.before = el("button", { type: "button", "aria-label": "Previous page", onclick: () => this.turn(-1) }, "‹");
    this.after = el("button", { type: "button", "aria-label": "Next page", onclick: () => this.turn(1) }, "›");
    this.text = el("span");
    place.append(this.text, this.before, this.after);
  }

  turn(by) {
    this.page = Math.max(0, this.page + by);
    this.changed();
  }

  slice(items) {
    const last = Math.max(0, Math.ceil(items.length / this.size) - 1);
    this.page = Math.min(this.page, last);
    const from = this.page * this.size;
    const shown = items.slice(from, from + this.size);
    setText(this.text, items.length ? `${from + 1}–${from + shown.length} of ${items.length.toLocaleString("en")}` : "none");
    this.before.disabled = this.page === 0;
    this.after.disabled = this.page >= last;
    return shown;
  }
}
