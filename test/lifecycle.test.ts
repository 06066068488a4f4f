import { expect, test } from "bun:test";

import { type Event, type State, step, TRANSITIONS } from "../src/lifecycle.ts";

test("TRANSITIONS decide every state and event", () => {
  const lines: string[] = [];
  for (const state of Object.keys(TRANSITIONS) as State[]) {
    for (const event of Object.keys(TRANSITIONS[state]) as Event[]) {
      const next = step(state, event);
      lines.push(`${state.padEnd(8)} ${event.padEnd(9)} → ${next.state.padEnd(8)} ${next.action}`);
    }
  }
  expect(lines.join("\n")).toBe(
    `
stopped  start     → running  spawn
stopped  stop      → stopped  refuseStopped
stopped  remove    → stopped  discard
stopped  ended     → stopped  none
stopped  crashed   → stopped  none
stopped  exhausted → stopped  none
stopped  due       → stopped  none
stopped  emptied   → stopped  none
stopped  expired   → stopped  none
stopped  stuck     → stopped  none
stopped  strays    → stopped  none
running  start     → running  refuseRunning
running  stop      → stopping interrupt
running  remove    → running  refuseRunning
running  ended     → stopped  sweep
running  crashed   → waiting  sweepAndWait
running  exhausted → failed   sweep
running  due       → running  none
running  emptied   → running  none
running  expired   → running  none
running  stuck     → running  none
running  strays    → running  none
stopping start     → stopping refuseStopping
stopping stop      → stopping wait
stopping remove    → stopping refuseStopping
stopping ended     → stopping look
stopping crashed   → stopping look
stopping exhausted → stopping look
stopping due       → stopping none
stopping emptied   → stopped  answer
stopping expired   → stopping kill
stopping stuck     → running  report
stopping strays    → stopped  report
waiting  start     → running  spawn
waiting  stop      → stopping kill
waiting  remove    → waiting  discard
waiting  ended     → waiting  none
waiting  crashed   → waiting  none
waiting  exhausted → waiting  none
waiting  due       → running  spawn
waiting  emptied   → waiting  none
waiting  expired   → waiting  none
waiting  stuck     → waiting  none
waiting  strays    → waiting  none
failed   start     → running  spawn
failed   stop      → failed   refuseStopped
failed   remove    → failed   discard
failed   ended     → failed   none
failed   crashed   → failed   none
failed   exhausted → failed   none
failed   due       → failed   none
failed   emptied   → failed   none
failed   expired   → failed   none
failed   stuck     → failed   none
failed   strays    → failed   none
`.trim(),
  );
});
