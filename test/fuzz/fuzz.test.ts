import { describe, expect, test } from "bun:test";

import { FOUND } from "./found.ts";
import { mutate, shrink } from "./mutate.ts";
import { breaks, formatFound, search } from "./search.ts";
import { type Surface, SURFACES } from "./surfaces.ts";
import { Random } from "../support/random.ts";

/** Of the time in which a surface is tried here. */
const SECONDS = 0.4;

const make = (name: string): Surface => (SURFACES[name] as () => Surface)();

describe("Bytes of strangers (R27)", () => {
  test.each(Object.keys(SURFACES))("break no rule: %s", async (name) => {
    const surface = make(name);
    for (const sample of surface.samples) expect(breaks(surface, sample, 1)).toBe(undefined);
    const found = await search(surface, 1, Math.ceil(surface.perSecond * SECONDS));
    expect(found && formatFound(name, found)).toBe(undefined);
  });

  test("that broke one once do not again", () => {
    for (const [name, seed, input] of FOUND) {
      expect([name, seed, breaks(make(name), Buffer.from(input, "base64"), seed)]).toEqual([name, seed, undefined]); // prettier-ignore
    }
  });
});

describe("The search", () => {
  const picky = (isBad: (input: Buffer) => boolean): Surface => ({
    samples: [Buffer.from('{"Add":{"id":"x","path":"/bin/x"}}\n')],
    perSecond: 1,
    run: (input) => {
      if (isBad(input)) throw new TypeError("not a refusal");
    },
  });

  test.each([
    ["a byte that UTF-8 never has", (input: Buffer) => input.includes(0xff)],
    ["deep nesting", (input: Buffer) => input.includes("[[[[[[[[[[")],
    ["a name of the engine", (input: Buffer) => input.includes("__proto__")],
    ["a cut line", (input: Buffer) => input.length > 8 && !input.includes("\n")],
    ["a large length", (input: Buffer) => input.includes(Buffer.from([0xff, 0xff, 0xff, 0xff]))],
  ])("finds within 2,000 inputs, and shortens: %s", async (_name, isBad) => {
    const found = await search(picky(isBad), 1, 2_000);
    expect(found?.error).toBeInstanceOf(TypeError);
    expect((found?.input as Buffer).length).toBeLessThan(12);
  });

  test("makes the same input of the same seed", () => {
    const sample = Buffer.from("0123456789".repeat(20));
    const [one, other] = [new Random(7), new Random(7)].map((random) => mutate(random, sample, []));
    expect(one).toEqual(other as Buffer);
  });

  test("shortens to what matters alone", async () => {
    const input = Buffer.from(`${"x".repeat(300)}A${"y".repeat(300)}B`);
    const has = (text: Buffer): boolean => text.includes("A") && text.includes("B");
    expect((await shrink(input, (text) => Promise.resolve(has(text)))).toString()).toBe("AB");
  });
});
