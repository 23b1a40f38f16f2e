"use strict";

const POLL_MS = 500;

function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function load(url) {
  const response = await fetch(url, { cache: "no-store" });
  if (!response.ok) {
    throw new Error(`${response.status} ${response.statusText}`);
  }
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

// Screen readers announce every change: leave alone what is the same.
function update(element, next) {
  if (next && !element.isEqualNode(next)) {
    element.className = next.className;
    element.textContent = next.textContent;
  }
}

// The server renders everything: take over what is new in its page.
function show(page) {
  document.title = page.title;
  for (const id of ["status", "state", "count"]) {
    update(document.getElementById(id), page.getElementById(id));
  }
  const [bar, next] = [document, page].map((where) => where.querySelector("progress"));
  if (!next) {
    document.getElementById("details").replaceWith(page.getElementById("details"));
  } else if (next.position < 0) {
    bar.removeAttribute("value"); // nothing to measure yet
  } else {
    // The same bar, so that it glides.
    bar.max = next.max;
    bar.value = next.value;
  }
}

async function follow() {
  while (document.querySelector("progress")) {
    await wait(POLL_MS);
    const page = await load(location.href).catch(() => null);
    if (page) {
      show(page);
    } else {
      document.getElementById("state").textContent = "No answer. Trying again.";
    }
  }
}

function exampleRows(count) {
  const categories = ["Groceries", "Rent", "Travel", "Books", "Coffee"];
  const start = Date.UTC(2024, 0, 1);
  const lines = ["date,category,amount"];
  for (let i = 0; i < count; i += 1) {
    const day = new Date(start + (i % 366) * 86400000).toISOString().slice(0, 10);
    const amount = ((i * 37) % 9000) / 100 + 1;
    lines.push(`${day},${categories[i % categories.length]},${amount.toFixed(2)}`);
  }
  // Some that cannot be read.
  lines[700] = "2024-02-30,Travel,18.00";
  lines[2100] = "2024-03-09,Books,twelve";
  lines[3900] = "2024-09-26,Coffee";
  return lines.join("\n");
}

follow();

const example = document.querySelector("#example");
if (example) {
  example.hidden = false;
  example.addEventListener("click", () => {
    document.querySelector("#text").value = exampleRows(5000);
    document.querySelector("#file").value = "";
  });
}
