import { expect, test } from "bun:test";

import { runBench } from "../../bench/bench.ts";
import type { Result } from "../../bench/table.ts";
import type { Row } from "../../bench/row.ts";
import { ROWS } from "../../bench/rows.ts";

async function smoke(keys: readonly string[]): Promise<Result[]> {
  const results: Result[] = [];
  const onResult = (result: Result): void => void results.push(result);
  await runBench({ isSmoke: true, rounds: 1, keys, onResult });
  return results;
}

function expectWork(results: readonly Result[], rows: readonly Row[]): void {
  expect(results.map(({ figure }) => figure)).toEqual(rows.flatMap(({ figures }) => figures));
  for (const { figure, count, crc, dropped, ours, bare } of results) {
    const isWorkDone = count > 0 && crc !== 0 && ours >= 0 && bare !== undefined && bare >= 0;
    expect([figure.name, isWorkDone, dropped]).toEqual([figure.name, true, 0]);
  }
}

const usual = ROWS.filter(({ isOnRequest }) => isOnRequest !== true);
const [own, foreign] = [usual.filter(({ needs }) => !needs), usual.filter(({ needs }) => needs)];

// Wrong bytes, a wrong count, or accounts that disagree with the work make `runBench` throw.
test.concurrent(
  "every benchmark does its work: nothing is dropped, wrong or missing at smoke size",
  async () => {
    expectWork(await smoke(own.map(({ key }) => key)), own);
  },
  240_000,
);

test.concurrent(
  "so does each that needs another program, where that is installed",
  async () => {
    const found = foreign.filter(({ needs }) => needs?.path !== undefined);
    if (found.length > 0) expectWork(await smoke(found.map(({ key }) => key)), found);
  },
  240_000,
);

// What a heap holds until it is collected is more than the 8 MiB of the real soak; what leaks at
// full speed is hundreds in these seconds.
test.concurrent(
  "ten seconds at full speed, with a consumer that never reads, leave no more than they found",
  async () => {
    const [result] = await smoke(["memory"]);
    expect(result?.ours).toBeLessThan(96);
  },
  240_000,
);
