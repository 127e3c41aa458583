"use strict";
// Shared by the pages. Each page of the console defines TEXTS, `state`, draw, refresh, signIn and fallbackText, and ends
// with initialise(). Texts of the gateway are never interpreted as HTML.

const byId = (id) => document.getElementById(id);

function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (name) element.className = name;
  return element;
}
function say(key) { return TEXTS[state.language][key] || TEXTS.en[key] || fallbackText(key); }

function translate() {
  document.documentElement.lang = state.language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = say(element.dataset.t);
  byId("language").textContent = state.language === "en" ? "中文" : "English";
  byId("language").lang = state.language === "en" ? "zh-CN" : "en";
  draw();
}

function initialise() {
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = byId("token").value.trim();
    byId("token").value = "";
    byId("refusal").textContent = "";
    sessionStorage.setItem("token", state.token);
    refresh();
  });
  byId("language").addEventListener("click", () => {
    state.language = state.language === "en" ? "zh-CN" : "en";
    localStorage.setItem("language", state.language);
    translate();
  });
  state.language = localStorage.getItem("language") || (navigator.language.toLowerCase().startsWith("zh") ? "zh-CN" : "en");
  state.token = sessionStorage.getItem("token") || "";
  translate();
  if (state.token) refresh(); else signIn();
}
