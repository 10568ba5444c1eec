"use strict";

// Works from disk, where storage and clipboard may be refused; without scripts all boards stand below one another.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  function remembered() {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  }

  function remember(theme) {
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // The choice holds for this page only.
    }
  }

  const theme = remembered();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  function themeButton() {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
    const name = () => (button.textContent = dark() ? "Light theme" : "Dark theme");
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      remember(root.dataset.theme);
      name();
    });
    system.addEventListener("change", name);
    name();
    button.hidden = false;
  }

  function copyButtons() {
    for (const button of document.querySelectorAll("button.copy")) {
      const source = document.getElementById(button.dataset.copy);
      button.hidden = false;
      button.addEventListener("click", async () => {
        getSelection().selectAllChildren(source);
        try {
          await navigator.clipboard.writeText(source.textContent);
          button.firstChild.data = "Copied";
        } catch {
          button.firstChild.data = "Selected";
        }
      });
    }
  }

  function boards() {
    const sections = [...document.querySelectorAll("section.board")];
    if (!sections.length) return;
    const switches = document.getElementById("switches");
    const filters = document.getElementById("filters");
    const selects = [...switches.elements];
    const { text, kind } = filters.elements;
    const tables = new Map();
    let shown;

    function table(section) {
      if (!tables.has(section)) {
        const made = new DataTable(section.querySelector("table"), {
          autoWidth: false,
          columnDefs: [{ targets: ["n"], orderSequence: ["desc", "asc"] }, { targets: ["rank"], orderSequence: ["asc", "desc"] }],
          language: { zeroRecords: "No entry fits." },
          layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
          order: [[0, "asc"]],
          paging: false,
        });
        made.search.fixed("kind", (_, __, row) => !kind.value || made.row(row).node().dataset.kind === kind.value);
        tables.set(section, made);
      }
      return tables.get(section);
    }

    function filter() {
      const { recordsDisplay, recordsTotal } = table(shown).search(text.value).draw().page.info();
      shown.querySelector(".count").textContent = `${recordsDisplay} of ${recordsTotal} entries`;
    }

    function show(section) {
      shown = section;
      for (const each of sections) each.classList.toggle("shown", each === section);
      for (const select of selects) select.value = section.dataset[select.name];
      document.getElementById("shown").textContent = "Board: " + section.querySelector("h2").textContent;
      filter();
    }

    function showNamed() {
      show(sections.find((section) => section.id === location.hash.slice(1)) || shown || sections[0]);
    }

    switches.addEventListener("change", ({ target }) => {
      // Not every combination has a board: the wanted value, and as much of the others as there is.
      const kept = (section) => selects.filter((select) => section.dataset[select.name] === select.value).length;
      const having = sections.filter((section) => section.dataset[target.name] === target.value);
      show(having.reduce((best, section) => (kept(section) > kept(best) ? section : best)));
      history.replaceState(null, "", "#" + shown.id);
    });
    filters.addEventListener("input", filter);
    for (const form of [switches, filters]) {
      form.addEventListener("submit", (event) => event.preventDefault());
      form.hidden = false;
    }
    addEventListener("hashchange", showNamed);
    showNamed();
  }

  addEventListener("DOMContentLoaded", () => {
    themeButton();
    copyButtons();
    boards();
  });
})();
