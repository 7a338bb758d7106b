// Begins the page.
"use strict";

function summary() {
  const all = DATA.steps.reduce((sum, step) => sum + step.all, 0);
  const here = DATA.attempts.length;
  const is = here === 1 ? "is" : "are";
  const some = here < all || DATA.steps.length < DATA.iterations;
  const of = DATA.steps.length < DATA.iterations
    ? `${here.toLocaleString("en")} attempts of ${DATA.steps.length} of ${counted(DATA.iterations, "iteration")}`
    : `${here.toLocaleString("en")} of ${counted(all, "attempt")}`;
  const attempts = some
    ? `${of} ${is} on this page, spread evenly over steps, environments and tasks`
    : `${counted(all, "attempt")} in ${counted(DATA.iterations, "iteration")}, all of them on this page`;
  const rows = steps.length < DATA.num_rows ? `; charts have ${steps.length} of ${DATA.num_rows} rows` : "";
  return `${counted(steps[steps.length - 1], "step")}; ${attempts}${rows}.`;
}

document.title = `${DATA.name}: reinforcement learning`;
$("name").textContent = DATA.name;
$("summary").textContent = summary();
drawCharts();
$("cursor").max = steps.length - 1;
$("cursor").addEventListener("input", () => moveCursor(Number($("cursor").value)));
$("whole").addEventListener("click", () => {
  moveCursor();
  $("cursor").focus();
});
moveCursor();
startReader();
