// Run once when the page has loaded: keeps both panes level turn by turn, gives the composer the keyboard back after an
// answer, names the buttons that have only an icon, and saves exported files. `names` holds those names by language.
(names) => {
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

  let due = false;
  new MutationObserver((changes) => {
    const enabled = changes.some(({ type, target }) => type === "attributes" && target.matches("#ask textarea:enabled"));
    // Not on a touch screen, where it would open the on-screen keyboard over the answer.
    if (enabled && document.activeElement === document.body && matchMedia("(pointer: fine)").matches) {
      document.querySelector("#ask textarea").focus();
    }
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; label(); translate(); level(); follow(); });
  }).observe(document.body, { childList: true, subtree: true, characterData: true, attributeFilter: ["disabled"] });
  window.addEventListener("resize", level);
  label();
  level();

  window.saveFile = (name, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  };
}
