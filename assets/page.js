// Run once when the page has loaded: keeps both panes level turn by turn, gives the composer the keyboard back after an
// answer, names the buttons that have only an icon, shows why two answers differ and who speaks, takes dropped cards and
// saves exported files. `names` holds the interface's words by language.
(names) => {
  const MAX_CARD = 5 << 20; // bytes
  const words = names[document.documentElement.lang.startsWith("zh") ? "zh" : "en"];
  const label = () => {
    for (const [selector, key] of [[".submit-button", "send"], [".stop-button", "stop"], [".edit-textarea", "edit"]]) {
      document.querySelectorAll(selector).forEach((element) => { element.ariaLabel = words[key]; });
    }
    document.querySelectorAll(".examples").forEach((element) => { element.role = "group"; }); // buttons are no list items
  };

  // Gradio says these two in English alone.
  const said = [[/^queue: (\d+)\/\d* \|/, "queued"], [/^This application is currently busy/, "queue_full"]];
  const translate = () => {
    for (const element of document.querySelectorAll('[data-testid="status-tracker"] *, [data-testid="toast-body"] *')) {
      for (const node of element.childNodes) {
        const [, key] = (node.nodeType === Node.TEXT_NODE && said.find(([known]) => known.test(node.data.trim()))) || [];
        if (key) node.data = words[key].replace("{place}", node.data.match(/\d+/)?.[0]);
      }
    }
  };

  // A pane's label opens the choice of who speaks in it.
  const choices = () => ["left", "right"].map((id) => [id, ...[`#${id}-choice`, `#${id} label[data-testid="block-label"]`].map((selector) => document.querySelector(selector))]);
  const choose = (open) => {
    document.body.dataset.choice = open;
    choices().forEach(([id, , label]) => { if (label?.role === "button") label.ariaExpanded = `${id === open}`; });
  };
  const offerChoices = () => choices().forEach(([id, choice, label]) => {
    if (!choice || !label || label.role === "button") return;
    Object.assign(label, { role: "button", tabIndex: 0, ariaExpanded: "false" });
    label.setAttribute("aria-controls", choice.id);
    const toggle = () => choose(document.body.dataset.choice === id ? "" : id);
    label.onclick = toggle;
    label.onkeydown = (event) => { if (["Enter", " "].includes(event.key)) { event.preventDefault(); toggle(); } };
  });
  ["pointerdown", "focusin"].forEach((leaving) => document.addEventListener(leaving, ({ target }) => {
    if (document.body.dataset.choice && !target.closest('.choice, [role="listbox"], #panes label[role="button"]')) choose("");
  }));
  document.addEventListener("keydown", ({ key }) => {
    const open = document.body.dataset.choice;
    if (key !== "Escape" || !open) return;
    choose("");
    document.querySelector(`#${open} label[role="button"]`)?.focus();
  });

  const panes = () => ["left", "right"].map((id) => document.querySelector(`#${id} [role="log"]`)).filter(Boolean);

  // A message row and the buttons under it differ in height between the panes; equal rows line the turns up.
  const level = () => {
    const shown = panes();
    shown.forEach((pane) => { if (!pane.hasAttribute("tabindex")) pane.tabIndex = 0; }); // scrolled by keyboard too
    const columns = shown.map((pane) => [...pane.querySelectorAll(".message-row")]);
    columns.flat().forEach((row) => { row.style.minHeight = ""; });
    if (columns.length < 2) return;
    columns[0].forEach((row, index) => {
      const pair = [row, columns[1][index]];
      if (!pair[1]) return;
      const height = `${Math.max(...pair.map((one) => one.getBoundingClientRect().height))}px`;
      pair.forEach((one) => { one.style.minHeight = height; });
    });
  };

  // Both panes show the same turns: they follow the one that was last scrolled by hand, else the newest question stays
  // at the top, so that a long answer on one side does not push a short one on the other out of sight.
  let leader = null;
  const newest = (pane) => {
    const asked = [...pane.querySelectorAll(".user.message")].at(-1)?.closest(".message-row");
    return asked ? asked.getBoundingClientRect().top - pane.getBoundingClientRect().top + pane.scrollTop : 0;
  };
  const follow = () => {
    panes().forEach((pane) => { if (pane !== leader) pane.scrollTop = leader?.isConnected ? leader.scrollTop : newest(pane); });
  };
  ["wheel", "touchstart", "pointerdown", "keydown"].forEach((type) =>
    document.addEventListener(type, (event) => { leader = event.target.closest('[role="log"]'); }, true));
  document.addEventListener("scroll", (event) => { if (event.target === leader) follow(); }, true);

  // "Why" stands where a footer ends in the joiner that the server puts there. What it shows stays as long as its answer
  // stands above it, and is looked at token by token: by pointer, tap, or the arrow keys.
  const EXPLAINABLE = "\u2060";
  const saidIn = (message) => message.querySelector(".message-content").textContent;
  const explain = () => {
    document.querySelectorAll("#panes .bot .thought .message-content").forEach((footer) => {
      const has = footer.nextElementSibling?.matches(".why"), may = document.querySelector("#ask-why") && footer.textContent.trimEnd().endsWith(EXPLAINABLE);
      if (may && !has) {
        const button = Object.assign(document.createElement("button"), { className: "why", type: "button", textContent: words.why });
        button.ariaExpanded = "false";
        button.onclick = () => askWhy(button);
        footer.after(button);
      }
      if (!may && has) footer.nextElementSibling.remove();
    });
    document.querySelectorAll(".why-view").forEach((view) => {
      if (saidIn(view.closest(".bot.message")) !== view.said) closeWhy(view);
    });
  };
  const closeWhy = (view) => {
    const button = view.closest(".bot.message").querySelector(".why");
    if (button) button.ariaExpanded = "false";
    view.remove();
  };
  let why = null; // the pane, the exchange and the button that were asked last
  const waiting = new Set(); // buttons that were pressed meanwhile: one answer is looked into at a time
  const askWhy = (button) => {
    const open = button.closest(".bot.message").querySelector(".why-view");
    if (open) { closeWhy(open); return; }
    if (why?.button.ariaBusy === "true") { if (button !== why.button) waiting.add(button); return; }
    const pane = button.closest("#left, #right"), rows = [...pane.querySelectorAll(".message-row")];
    const before = rows.slice(0, rows.indexOf(button.closest(".message-row")));
    const number = before.filter((row) => row.querySelector(".user.message")).length - 1;
    why = { asked: [pane.id === "left" ? 0 : 1, number], button };
    button.ariaBusy = "true";
    document.querySelector("#ask-why").click();
  };
  window.askedWhy = () => why.asked;
  window.showWhy = (pane, number, html) => {
    const { button, asked } = why;
    button.ariaBusy = "false";
    if (html !== undefined && button.isConnected && `${asked}` === `${[pane, number]}`) openWhy(button, html);
    const next = [...waiting].find((one) => one.isConnected);
    waiting.delete(next);
    if (next) askWhy(next);
  };
  const openWhy = (button, html) => {
    const message = button.closest(".bot.message"), view = document.createElement("section");
    Object.assign(view, { className: "why-view", innerHTML: html, said: saidIn(message), ariaLabel: words.why });
    const pieces = [...view.querySelectorAll(".piece")], tables = [...view.querySelectorAll(".details table")];
    const look = (index) => {
      tables.forEach((table, other) => { table.hidden = other !== index; });
      pieces.forEach((piece, other) => { piece.tabIndex = other === index ? 0 : -1; piece.ariaPressed = `${other === index}`; });
    };
    const reach = (index) => pieces[index]?.focus();
    pieces.forEach((piece, index) => {
      ["mouseenter", "focus", "click"].forEach((type) => piece.addEventListener(type, () => look(index)));
      piece.addEventListener("keydown", ({ key }) => {
        if (key === "ArrowRight") reach(index + 1);
        if (key === "ArrowLeft") reach(index - 1);
      });
    });
    look(Math.max(0, pieces.findIndex((piece) => piece.matches(".parts"))));
    message.append(view);
    button.ariaExpanded = "true";
  };

  let due = false;
  new MutationObserver((changes) => {
    const enabled = changes.some(({ type, target }) => type === "attributes" && target.matches("#ask textarea:enabled, body:not([inert])"));
    // Not on a touch screen, where it would open the on-screen keyboard over the answer.
    if (enabled && document.activeElement === document.body && matchMedia("(pointer: fine)").matches) {
      document.querySelector("#ask textarea").focus();
    }
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; label(); translate(); offerChoices(); explain(); level(); follow(); });
  }).observe(document.body, { childList: true, subtree: true, characterData: true, attributeFilter: ["disabled", "inert"] });
  window.addEventListener("resize", level);
  label();
  level();

  // The scoreboard's lists: filtered here, and an item of one is asked in the chat.
  const filter = () => {
    const board = document.querySelector("#board"), kind = board.querySelector(".filter .which").value;
    const opponent = board.querySelector(".filter .opponent")?.value;
    board.querySelectorAll(".against").forEach((lists) => { lists.hidden = opponent && lists.dataset.arm !== opponent; });
    const wanted = board.querySelector(".filter input").value.toLowerCase();
    board.querySelectorAll(".flips").forEach((list) => {
      const items = [...list.querySelectorAll("article")];
      items.forEach((item) => { item.hidden = (kind !== "all" && !item.matches(`.${kind}`)) || !item.textContent.toLowerCase().includes(wanted); });
      list.hidden = items.every((item) => item.hidden);
    });
  };
  document.addEventListener("input", ({ target }) => { if (target.closest("#board .filter")) filter(); });
  document.addEventListener("click", ({ target }) => {
    const text = target.closest("#board .ask")?.dataset.ask;
    if (text === undefined) return;
    document.querySelector('#tabs [role="tab"]').click();
    const composer = document.querySelector("#ask textarea");
    composer.value = text;
    composer.dispatchEvent(new Event("input", { bubbles: true }));
    const focus = () => composer.offsetParent ? composer.focus() : requestAnimationFrame(focus);  // once its tab is shown
    focus();
  });

  const pick = (accept, use) => {
    const input = document.createElement("input");
    Object.assign(input, { type: "file", accept, onchange: () => input.files[0] && use(input.files[0]) });
    input.click();
  };

  // A character card that is dropped anywhere, or chosen, is read here and handed over by the hidden button `take`, which
  // is there where the server takes any.
  let card = null;
  const take = () => document.querySelector("#take");
  const offer = async (file) => {
    if (!file || !take()) return;
    const url = file.size <= MAX_CARD && await new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.readAsDataURL(file);
    });
    while (document.body.inert) await new Promise(requestAnimationFrame); // what the tab kept is to come back first
    card = [file.name, url ? url.slice(url.indexOf(",") + 1) : null];
    take().click();
  };
  const holdsFile = (event) => Boolean(take()) && [...event.dataTransfer.types].includes("Files");
  const show = (event, over) => {
    if (!holdsFile(event)) return;
    event.preventDefault(); // else the browser leaves the page to show the file
    event.stopPropagation();
    document.body.classList.toggle("dropping", over);
  };
  document.addEventListener("dragover", (event) => show(event, true), true);
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) show(event, false); }, true);
  document.addEventListener("drop", (event) => { show(event, false); if (holdsFile(event)) offer(event.dataTransfer.files[0]); }, true);
  window.takeCard = () => card;
  window.chooseCard = () => pick(".png,.json,.yaml,.yml", offer);

  // A saved conversation is read here and handed over by the hidden button `take-chat`.
  let chat = null;
  window.takeChat = () => chat;
  window.chooseChat = () => pick(".json", async (file) => {
    chat = file.size <= MAX_CARD ? await file.text() : null;
    document.querySelector("#take-chat").click();
  });

  window.saveFile = (name, text) => {
    const link = document.createElement("a");
    const picture = text.startsWith("data:image/png;base64,");
    link.href = picture ? text : URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  };
}
