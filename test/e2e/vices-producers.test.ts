// R22 and R24: an instance that sends what it should not, or too much, costs nobody else anything.

import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { type Flood, flood, roundTrips } from "../experiments/floods.ts";
import { double, OFFENCES, type Offence, offend } from "../experiments/offenders.ts";
import { misses } from "../experiments/outcome.ts";

setDefaultTimeout(60_000);

describe("An instance whose connections are", () => {
  test.each(Object.keys(OFFENCES) as Offence[])(
    "%s loses these only, and may connect again at once (P-23)",
    async (offence) => {
      expect(misses(await offend(offence, 50), "sane")).toEqual([]);
    },
  );

  test("more than one keeps the first, and nothing of the others is read (P-22)", async () => {
    expect(misses(await double(50), "sane")).toEqual([]);
  });
});

/** The soak has them all. */
const TESTED: readonly Flood[] = [
  "linked reading",
  "unlinked reading",
  "types reading",
  "kinds reading",
  "hellos deaf",
  "requests reading",
];

describe("An instance that floods", () => {
  test.each(TESTED)("with %s takes its share, and one log line a second", async (kind) => {
    const outcome = await flood(kind, { groups: 2, rounds: 5, ms: 60 });
    expect(misses(outcome, "sane")).toEqual([]);
  });

  test("holds up no request and no other pair", async () => {
    const kinds = ["linked reading", "unlinked reading", "lines reading"] as const;
    const outcome = await roundTrips({ kinds, rounds: 5, ms: 100 });
    expect(misses(outcome, "sane")).toEqual([]);
  });
});
