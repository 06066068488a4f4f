import { expect, test } from "bun:test";

import { runBench } from "../../bench/bench.ts";
import type { Result } from "../../bench/table.ts";
import { ROWS } from "../../bench/rows.ts";

async function smoke(keys: readonly string[]): Promise<Result[]> {
  const results: Result[] = [];
  const onResult = (result: Result): void => void results.push(result);
  await runBench({ isSmoke: true, rounds: 1, keys, onResult });
  return results;
}

// Wrong bytes, a wrong count, or accounts that disagree with the work make `runBench` throw.
test("every benchmark does its work: nothing is dropped, wrong or missing at smoke size", async () => {
  const results = await smoke([]);
  const rows = ROWS.filter(
    ({ isOnRequest, missing }) => isOnRequest !== true && missing === undefined,
  );
  expect(results.map(({ figure }) => figure)).toEqual(rows.flatMap(({ figures }) => figures));
  for (const { figure, count, crc, dropped, ours, bare } of results) {
    const isWorkDone = count > 0 && crc !== 0 && ours >= 0 && bare !== undefined && bare >= 0;
    expect([figure.name, isWorkDone, dropped]).toEqual([figure.name, true, 0]);
  }
}, 90_000);

// What a heap holds until it is collected is more than the 8 MiB of the real soak; what leaks at
// full speed is hundreds in these seconds.
test("ten seconds at full speed, with a consumer that never reads, leave no more than they found", async () => {
  const [result] = await smoke(["memory"]);
  expect(result?.ours).toBeLessThan(96);
}, 60_000);
