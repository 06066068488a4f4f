import { expect, test } from "bun:test";

import { type Event, type State, step, TRANSITIONS } from "../src/lifecycle.ts";

test("TRANSITIONS decide every state and event", () => {
  const lines: string[] = [];
  for (const state of Object.keys(TRANSITIONS) as State[]) {
    for (const event of Object.keys(TRANSITIONS[state]) as Event[]) {
      const next = step(state, event);
      lines.push(`${state.padEnd(8)} ${event.padEnd(7)} → ${next.state.padEnd(8)} ${next.action}`);
    }
  }
  expect(lines.join("\n")).toBe(
    `
stopped  start   → running  spawn
stopped  stop    → stopped  refuseStopped
stopped  exit    → stopped  none
stopped  emptied → stopped  none
stopped  expired → stopped  none
stopped  stuck   → stopped  none
running  start   → running  refuseRunning
running  stop    → stopping interrupt
running  exit    → stopped  sweep
running  emptied → running  none
running  expired → running  none
running  stuck   → running  none
stopping start   → stopping refuseStopping
stopping stop    → stopping wait
stopping exit    → stopping none
stopping emptied → stopped  answer
stopping expired → stopping kill
stopping stuck   → running  report
`.trim(),
  );
});
