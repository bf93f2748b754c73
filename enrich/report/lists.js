(() => {
  "use strict";
  // --- lists: search, more --------------------------------------------------------------------------------

  document.querySelectorAll("[data-list]").forEach((list) => {
    const items = [...list.querySelectorAll("[data-item]")];
    const texts = items.map((item) => item.textContent.toLowerCase());
    const first = Number(list.dataset.first);
    const name = list.dataset.list;
    const search = document.querySelector(`[data-search="${name}"]`);
    const told = document.querySelector(`[data-told="${name}"]`);
    const more = document.querySelector(`[data-more="${name}"]`);
    const pick = document.querySelector(`[data-pick="${name}"]`);
    const tags = items.map((item) => JSON.parse(item.dataset.tags));
    let all = items.length <= first;

    function show() {
      const wanted = search.value.trim().toLowerCase();
      const tag = pick ? pick.value : "";
      const narrowed = Boolean(wanted || tag);
      const found = items.filter((item, number) => {
        const match = (!wanted || texts[number].includes(wanted)) && (!tag || tags[number].includes(tag));
        item.toggleAttribute("data-out", !match);
        item.hidden = !match || (!narrowed && !all && number >= first);
        return match;
      });
      told.textContent = narrowed ? `${found.length.toLocaleString("en-US")} of ${items.length.toLocaleString("en-US")} match` : "";
      more.hidden = all || narrowed;
    }

    search.addEventListener("input", show);
    if (pick) pick.addEventListener("change", show);
    more.addEventListener("click", () => { all = true; show(); items[first].querySelector("button")?.focus(); });
    show();
  });
})();
