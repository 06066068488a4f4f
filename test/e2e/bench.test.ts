import { expect, test } from "bun:test";

import { runBench } from "../../bench/bench.ts";
import type { Result } from "../../bench/table.ts";
import { ROWS } from "../../bench/rows.ts";

// Wrong bytes, a wrong count, or accounts that disagree with the work make `runBench` throw.
test("every benchmark does its work: nothing is dropped, wrong or missing at smoke size", async () => {
  const results: Result[] = [];
  await runBench({
    isSmoke: true,
    rounds: 1,
    keys: [],
    onResult: (result) => void results.push(result),
  });
  const rows = ROWS.filter(({ isOnRequest }) => isOnRequest !== true);
  expect(results.map(({ figure }) => figure)).toEqual(rows.flatMap(({ figures }) => figures));
  for (const { figure, count, crc, dropped, ours, bare } of results) {
    const isWorkDone = count > 0 && crc !== 0 && ours > 0 && bare > 0;
    expect([figure.name, isWorkDone, dropped]).toEqual([figure.name, true, 0]);
  }
}, 240_000);
