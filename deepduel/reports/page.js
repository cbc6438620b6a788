"use strict";

// Tables sort by the column whose heading is clicked; large galleries have filters and pages.

function value(row, column) {
  const text = row.children[column].textContent.trim();
  const figure = parseFloat(text.replaceAll(",", "").replace("> ", ""));
  return /^[>\d]/.test(text) && !Number.isNaN(figure) ? figure : text;
}

function compare(first, second) {
  if (typeof first === typeof second)
    return typeof first === "number" ? first - second : first.localeCompare(second, "en", { numeric: true });
  return typeof first === "number" ? -1 : 1;
}

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const order = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      rows.sort((first, second) => sign * compare(value(first, column), value(second, column)));
      table.tBodies[0].append(...rows);
    });
  });
}

function choice(label, names, controls, changed) {
  const select = document.createElement("select");
  select.setAttribute("aria-label", label);
  select.append(new Option(label + ": all", ""));
  for (const name of [...new Set(names)].sort(new Intl.Collator("en", { numeric: true }).compare))
    select.append(new Option(name, "=" + name));
  select.addEventListener("change", changed);
  controls.append(select);
  return (name) => select.value === "" || select.value === "=" + name;
}

function paged(gallery) {
  const size = Number(gallery.dataset.page);
  const images = [...gallery.querySelectorAll("figure")];
  const controls = document.createElement("div");
  controls.className = "controls";
  let page = 0;
  const changed = () => { page = 0; show(); };
  const isTrue = choice("true class", images.map((image) => image.dataset.true), controls, changed);
  const isPredicted = choice("predicted", images.map((image) => image.dataset.predicted), controls, changed);
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "part of the path";
  search.setAttribute("aria-label", "part of the path");
  search.addEventListener("input", changed);
  const back = document.createElement("button"), on = document.createElement("button");
  const where = document.createElement("span");
  where.setAttribute("aria-live", "polite");
  back.textContent = "‹ previous";
  on.textContent = "next ›";
  back.addEventListener("click", () => { page -= 1; show(); });
  on.addEventListener("click", () => { page += 1; show(); });
  controls.append(search, back, where, on);
  gallery.before(controls);

  function show() {
    const matching = images.filter((image) => isTrue(image.dataset.true) && isPredicted(image.dataset.predicted)
      && image.querySelector("code").textContent.includes(search.value));
    const first = page * size, last = Math.min(first + size, matching.length);
    const visible = new Set(matching.slice(first, last));
    images.forEach((image) => { image.hidden = !visible.has(image); });
    where.textContent = matching.length ? `${first + 1} to ${last} of ${matching.length}` : "none";
    back.disabled = page === 0;
    on.disabled = last === matching.length;
  }
  show();
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".gallery[data-page]").forEach(paged);
