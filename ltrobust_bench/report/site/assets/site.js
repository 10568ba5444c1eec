"use strict";

// What all pages share. They work from disk, where storage and clipboard may be refused.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  globalThis.ltbench = {
    /** The address behind #, as name and choices: "#board?find=reat&sort=union_tail.desc". */
    readAddress() {
      const [name, query = ""] = location.hash.slice(1).split("?", 2);
      return { name: decodeURIComponent(name), choices: new URLSearchParams(query) };
    },

    /** Put name and choices there; ``step``: as a step of its own, which Back undoes. */
    writeAddress(name, choices, step = false) {
      const query = choices.toString();
      const hash = "#" + encodeURIComponent(name) + (query && "?" + query);
      if (hash !== location.hash) history[step ? "pushState" : "replaceState"](null, "", hash);
    },

    /** An element with attributes and children; texts become text, never markup. */
    element(tag, attributes = {}, ...children) {
      return fill(document.createElement(tag), attributes, children);
    },

    /** The same in a drawing; ``svg`` says what its elements are. */
    shape(svg, tag, attributes = {}, ...children) {
      return fill(document.createElementNS(svg.namespaceURI, tag), attributes, children);
    },
  };

  function fill(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

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

  /** Published numbers: lines that have all words, under the headings that have such lines. */
  function finder() {
    const form = document.getElementById("finder");
    if (!form) return;
    const lines = [...document.querySelectorAll("tr[data-search]")];
    const parts = [...document.querySelectorAll(".found")];
    const count = document.getElementById("count");
    const find = (step) => {
      const words = form.elements.find.value.toLowerCase().split(/\s+/);
      for (const line of lines) line.hidden = !words.every((word) => line.dataset.search.includes(word));
      for (const part of parts) part.hidden = !part.querySelector("tr[data-search]:not([hidden])");
      count.textContent = `${lines.filter((line) => !line.hidden).length} of ${lines.length} numbers`;
      const choices = new URLSearchParams(form.elements.find.value ? { find: form.elements.find.value } : {});
      if (step) ltbench.writeAddress("numbers", choices);
    };
    form.addEventListener("input", () => find(true));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.elements.find.value = ltbench.readAddress().choices.get("find") || "";
    form.hidden = false;
    find(false);
  }

  addEventListener("DOMContentLoaded", () => {
    themeButton();
    copyButtons();
    finder();
  });
})();
