// Runs before the page is painted: the colours chosen last time, else those of the system.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("apexstream.theme");
  } catch {
    // storage is switched off: the system's colours
  }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (chosen) document.documentElement.dataset.chosen = ""; // then the system's do not count
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
