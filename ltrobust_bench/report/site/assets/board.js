"use strict";

// The leaderboard: which board, which entries and columns, in which order, as table, points or classes. All of it
// stands in the address. Without scripts all boards stand below one another, with all columns.
addEventListener("DOMContentLoaded", () => {
  const sections = [...document.querySelectorAll("section.board")];
  const switches = document.getElementById("switches");
  const filters = document.getElementById("filters");
  const chooser = document.getElementById("columns-form");
  const views = document.getElementById("views");
  const chosen = document.getElementById("chosen");
  const boxes = [...chooser.elements].filter((box) => box.name === "column");
  const usual = boxes.filter((box) => box.defaultChecked).map((box) => box.value);
  const titles = Object.fromEntries([...views.elements.x].map((option) => [option.value, option.textContent.trim()]));
  const boards = new Map();
  let shown, picked = new Set(), reading = false;

  class Board {
    constructor(section) {
      this.section = section;
      this.svg = section.querySelector("svg.plot");
      const table = section.querySelector("table.results");
      this.columns = table.dataset.names.split(" ");
      this.rows = [...table.tBodies[0].rows];
      this.values = new Map(this.rows.map((row) => [row, this.numbers(row)]));
      for (const row of this.rows) this.addBox(row);
      const order = (names, first, second) => ({ targets: names, orderSequence: [first, second] });
      this.table = new DataTable(table, {
        autoWidth: false,
        columnDefs: [order(["n"], "desc", "asc"), order(["rank"], "asc", "desc"), order(["words"], "asc", "desc")],
        language: { zeroRecords: "No entry fits." },
        layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
        order: [[0, "asc"]],
        paging: false,
      });
      this.table.search.fixed("kind", (_, __, row) => {
        const kind = filters.elements.kind.value;
        return !kind || this.table.row(row).node().dataset.kind === kind;
      });
      this.table.on("order", () => reading || write());
    }

    numbers(row) {
      const value = (cell) => (cell.dataset.order === "" ? NaN : Number(cell.dataset.order));
      return Object.fromEntries(this.columns.map((name, i) => [name, value(row.cells[i])]));
    }

    addBox(row) {
      const { label } = row.dataset;
      const box = ltbench.element("input", { type: "checkbox", class: "pick", "aria-label": `Compare ${label}` });
      box.addEventListener("change", () => {
        box.checked ? picked.add(label) : picked.delete(label);
        write();
        this.draw();
      });
      row.querySelector("th").prepend(box);
    }

    get sort() {
      const [[column, direction]] = this.table.order();
      return this.columns[column] === "rank" && direction === "asc" ? "" : `${this.columns[column]}.${direction}`;
    }

    set sort(text) {
      const [name, direction] = (text || "rank.asc").split(".");
      const at = Math.max(0, this.columns.indexOf(name));
      this.table.order([[at, direction === "desc" ? "desc" : "asc"]]);
    }

    /** Show what forms and choices say. */
    draw() {
      const visible = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
      this.columns.forEach((name, i) => {
        const wanted = name === "rank" || name === "method" || visible.has(name);
        if (this.table.column(i).visible() !== wanted) this.table.column(i).visible(wanted, false);
      });
      const { recordsDisplay, recordsTotal } = this.table.search(filters.elements.find.value).draw().page.info();
      this.section.querySelector(".count").textContent = `${recordsDisplay} of ${recordsTotal} entries`;
      const inside = new Set(this.table.rows({ search: "applied" }).nodes().toArray());
      const labels = new Set([...inside].map((row) => row.dataset.label));
      for (const row of this.rows) row.querySelector(".pick").checked = picked.has(row.dataset.label);
      for (const row of this.section.querySelectorAll(".heat tbody tr")) row.hidden = !labels.has(row.dataset.label);
      this.section.dataset.view = views.elements.view.value;
      if (views.elements.view.value === "points") this.plot(inside);
      this.offer();
    }

    plot(inside) {
      const axis = (name) => ({ name, title: titles[name] });
      const entries = this.rows.map((row) => ({
        title: row.dataset.title,
        href: row.querySelector("a").getAttribute("href"),
        ranked: !row.classList.contains("unranked"),
        inside: inside.has(row),
        picked: picked.has(row.dataset.label),
        always: "always" in row.dataset,
        values: this.values.get(row),
      }));
      ltbench.scatter(this.svg, entries, axis(views.elements.x.value), axis(views.elements.y.value));
    }

    /** The link to the comparison of the entries that were picked here. */
    offer() {
      const here = this.rows.map((row) => row.dataset.label).filter((label) => picked.has(label));
      const query = new URLSearchParams(here.map((label) => ["with", label]));
      chosen.hidden = !here.length;
      chosen.querySelector("span").textContent = here.length < 2 ? "1 entry chosen; choose another" : `${here.length} entries chosen`;
      const link = chosen.querySelector("a");
      link.hidden = here.length < 2;
      link.href = `compare.html#${encodeURIComponent(this.section.id)}?${query}`;
    }
  }

  function board(section) {
    if (!boards.has(section)) boards.set(section, new Board(section));
    return boards.get(section);
  }

  function show(section) {
    shown = section;
    for (const each of sections) each.classList.toggle("shown", each === section);
    for (const select of switches.elements) select.value = section.dataset[select.name];
    document.getElementById("shown").textContent = "Board: " + section.querySelector("h2").textContent;
    return board(section);
  }

  /** What was chosen, as far as it is not the usual. */
  function choices() {
    const found = new URLSearchParams();
    const say = (name, value, common = "") => value !== common && found.set(name, value);
    say("find", filters.elements.find.value);
    say("kind", filters.elements.kind.value);
    say("sort", board(shown).sort);
    say("columns", boxes.filter((box) => box.checked).map((box) => box.value).join(" "), usual.join(" "));
    say("view", views.elements.view.value, "table");
    for (const select of [views.elements.x, views.elements.y]) {
      say(select.name, select.value, [...select.options].find((option) => option.defaultSelected).value);
    }
    for (const label of picked) found.append("pick", label);
    return found;
  }

  function write(step = false) {
    ltbench.writeAddress(shown.id, choices(), step);
  }

  function read() {
    const { name, choices: said } = ltbench.readAddress();
    const named = sections.find((section) => section.id === name);
    if (shown && name && !named) return; // a link to another part of the page
    const set = (field, value) => {
      field.value = value;
      if (field.value !== value) field.selectedIndex = 0;
    };
    reading = true;
    filters.elements.find.value = said.get("find") || "";
    set(filters.elements.kind, said.get("kind") || "");
    const columns = new Set(said.has("columns") ? said.get("columns").split(" ") : usual);
    for (const box of boxes) box.checked = columns.has(box.value);
    const wanted = [...views.elements.view].find((radio) => radio.value === said.get("view"));
    (wanted || views.elements.view[0]).checked = true;
    for (const select of [views.elements.x, views.elements.y]) {
      const common = [...select.options].find((option) => option.defaultSelected).value;
      set(select, said.get(select.name) || common);
    }
    picked = new Set(said.getAll("pick"));
    const found = show(named || sections[0]);
    found.sort = said.get("sort");
    found.draw();
    reading = false;
    axes();
  }

  function axes() {
    document.getElementById("axes").hidden = views.elements.view.value !== "points";
  }

  function changed() {
    axes();
    write();
    board(shown).draw();
  }

  switches.addEventListener("change", ({ target }) => {
    // Not every combination has a board: the wanted value, and as much of the others as there is.
    const selects = [...switches.elements];
    const kept = (section) => selects.filter((select) => section.dataset[select.name] === select.value).length;
    const having = sections.filter((section) => section.dataset[target.name] === target.value);
    const found = show(having.reduce((best, section) => (kept(section) > kept(best) ? section : best)));
    write(true); // before drawing, which may write, too
    found.draw();
  });
  filters.addEventListener("input", changed);
  chooser.addEventListener("input", changed);
  views.addEventListener("input", changed);
  chosen.querySelector("button").addEventListener("click", () => {
    picked.clear();
    changed();
  });
  for (const form of [switches, filters, chooser, views]) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
  }
  if (matchMedia("(max-width: 40rem)").matches) document.getElementById("controls").open = false;
  addEventListener("hashchange", read);
  read();
});
