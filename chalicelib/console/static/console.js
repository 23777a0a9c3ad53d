// Follows the log, copies, and switches the zone of times. Without this script every page can be read all the same.
"use strict";
(() => {
  const root = document.documentElement;
  const main = document.getElementById("main");
  const bar = document.getElementById("follow");
  const every = 1000 * Number(bar?.dataset.seconds);
  let follows = bar?.dataset.follows === "yes";
  let updated = Date.now();
  let failed = "";

  // --- times --------------------------------------------------------------------------------------------------------
  const zoneButton = document.getElementById("zone");
  const kept = (() => { try { return localStorage; } catch { return null; } })();
  let local = kept?.getItem("zone") === "local";

  const two = (number) => String(number).padStart(2, "0");
  const inLocal = (at) =>
    `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ` +
    `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  function showTimes() {
    for (const each of document.querySelectorAll("time")) {
      const at = new Date(each.dateTime);
      const text = local ? inLocal(at) : each.dateTime.replace("T", " ").replace("Z", "");
      if (each.textContent !== text) each.textContent = text;
    }
    const name = local ? "local time" : "UTC";
    for (const each of document.querySelectorAll(".zone")) each.textContent = name;
    zoneButton.textContent = local ? "Show UTC" : "Show local time";
  }
  zoneButton.hidden = false;
  zoneButton.addEventListener("click", () => {
    local = !local;
    kept?.setItem("zone", local ? "local" : "utc");
    showTimes();
  });

  // --- copying ------------------------------------------------------------------------------------------------------
  function addButtons() {
    for (const each of document.querySelectorAll("[data-copy]")) {
      if (each.nextElementSibling?.classList.contains("copy")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      button.setAttribute("aria-label", `Copy ${each.dataset.copy || each.textContent}`);
      each.after(" ", button);
    }
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button.copy");
    if (!button) return;
    const source = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(source.dataset.copy || source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  // --- following ----------------------------------------------------------------------------------------------------
  const linkOf = (link) => link.getAttribute("href");
  const linksIn = (place) => [...place.querySelectorAll("a[href]")];

  // A link by its address, and by which of several to this address it is.
  const nameOf = (link) => [linkOf(link), linksIn(main).filter((each) => linkOf(each) === linkOf(link)).indexOf(link)];
  const named = ([href, at]) => {
    const same = linksIn(main).filter((each) => linkOf(each) === href);
    return same[at] || same[0];
  };

  const detailsIn = (place) => [...place.querySelectorAll("details")];
  const scrollers = (place) => [...place.querySelectorAll("[tabindex='0']")];

  // What the reader holds: a selection, a field that was changed, or a choice.
  function isBusy() {
    const selection = getSelection();
    if (!selection.isCollapsed && main.contains(selection.anchorNode)) return true;
    if (main.contains(document.activeElement) && document.activeElement.matches("input, select")) return true;
    return [...main.querySelectorAll("input")].some((field) => field.value !== field.defaultValue);
  }

  function replace(fresh) {
    const scrolled = scrollY;
    const seen = linksIn(main).find((link) => link.getBoundingClientRect().top >= 0);
    const top = seen?.getBoundingClientRect().top;
    const seenName = seen && nameOf(seen);
    const focused = main.contains(document.activeElement) ? document.activeElement : null;
    const focusedName = focused?.matches("a[href]") && nameOf(focused);
    const focusable = "a[href], button, summary, [tabindex='0']";
    const focusedAt = focused ? [...main.querySelectorAll(focusable)].indexOf(focused) : -1;
    const open = detailsIn(main).map((each) => each.open);
    const places = scrollers(main).map((each) => [each.scrollLeft, each.scrollTop]);
    main.replaceChildren(...fresh.childNodes);
    addButtons();
    showTimes();
    detailsIn(main).forEach((each, at) => { if (at in open) each.open = open[at]; });
    scrollers(main).forEach((each, at) => { if (at in places) [each.scrollLeft, each.scrollTop] = places[at]; });
    if (focused) {
      const same = focusedName ? named(focusedName) : main.querySelectorAll(focusable)[focusedAt];
      (same || main).focus({ preventScroll: true });
    }
    root.scrollTop = scrolled;
    const again = scrolled > 0 && seenName && named(seenName);
    if (again) root.scrollTop += again.getBoundingClientRect().top - top;
  }

  let last = main.innerHTML;
  async function read() {
    if (!follows || document.hidden || isBusy()) return;
    try {
      const response = await fetch(location.href, { cache: "no-store", redirect: "error" });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.getElementById("main");
      if (!response.ok || !fresh) throw new Error(page.querySelector("h1")?.textContent || "no page");
      if (!follows || isBusy()) return;
      if (fresh.innerHTML !== last) {
        last = fresh.innerHTML;
        replace(fresh);
      }
      const paused = page.getElementById("paused");
      document.getElementById("paused").replaceChildren(...paused.childNodes);
      showTimes();
      updated = Date.now();
      failed = "";
    } catch (error) {
      failed = error instanceof TypeError ? "the console does not answer" : error.message;
    }
    say();
  }

  function say() {
    if (!bar || !follows) return;
    const seconds = Math.round((Date.now() - updated) / 1000);
    const ago = seconds < 120 ? `${seconds} s ago` : `${Math.floor(seconds / 60)} min ago`;
    document.getElementById("updated").textContent = `Updated ${ago}${failed ? "." : ""}`;
    const trouble = document.getElementById("trouble");
    const text = failed ? `Not up to date: ${failed}.` : "";
    if (trouble.textContent !== text) trouble.textContent = text;
  }

  const toggle = document.getElementById("follow-link");
  toggle?.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    follows = !follows;
    const address = new URL(location.href);
    if (follows) address.searchParams.set("follow", "1");
    else address.searchParams.delete("follow");
    history.replaceState(null, "", address);
    toggle.textContent = follows ? "Pause" : "Follow";
    if (follows) read();
    else document.getElementById("updated").textContent = "Paused";
  });

  addButtons();
  showTimes();
  if (toggle) {
    last = main.innerHTML === last ? last : "";
    setInterval(say, 1000);
    setInterval(read, every);
    say();
  }
})();
