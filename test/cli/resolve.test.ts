import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { findInstance, findProgram, findTarget } from "../../src/cli/resolve.ts";

const A = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
const B = "0195fc7b-33e6-70e3-bee1-ac515185fa00";

describe("findInstance()", () => {
  test.each([
    [A, A],
    ["fac7", A],
    ["FAC7", A],
    ["7", A],
    ["0195fc7b-33e6-70e3-bee1-ac515185fac", A],
    ["a00", B],
  ])("%s is one id", (text, id) => {
    expect(findInstance(text, [A, B])).toBe(id);
  });

  test("what begins and ends the same id is one id", () => {
    expect(findInstance("0", [B])).toBe(B);
  });

  test.each([
    ["0195", `Cannot tell which instance "0195" is: it fits ${A}, ${B}`],
    ["ping", 'Cannot find instance "ping": no id begins or ends with it'],
    ["70e3", 'Cannot find instance "70e3": no id begins or ends with it'],
  ])("%s is refused", (text, message) => {
    expect(() => findInstance(text, [A, B])).toThrow(message);
  });

  test("names a few of many", () => {
    const ids = Array.from({ length: 100 }, (_, n) => `0195${n}`);
    expect(() => findInstance("0195", ids)).toThrow("01950, 01951, 01952, 01953 and 96 more");
  });
});

describe("findTarget()", () => {
  const none = (): Promise<never> => Promise.reject(new Error("the daemon was asked"));
  test("takes ids and addresses as they are", async () => {
    expect(await findTarget(A, none, 1000)).toEqual({ kind: "instance", id: A });
    expect(await findTarget("127.0.0.1:2661", none, 1000)).toEqual({
      kind: "remote",
      host: "127.0.0.1",
      port: 2661,
    });
    expect(await findTarget("[::1]:2661", none, 1000)).toEqual({
      kind: "remote",
      host: "::1",
      port: 2661,
    });
  });

  test("looks an instance up by a part of its id", async () => {
    const target = await findTarget("fac7", () => Promise.resolve([A, B]), 1000);
    expect(target).toEqual({ kind: "instance", id: A });
  });

  test("resolves names to an IP address", async () => {
    expect(await findTarget("localhost:2661", none, 5000)).toEqual({
      kind: "remote",
      host: "127.0.0.1",
      port: 2661,
    });
  });

  test("names a host that does not exist", async () => {
    const target = findTarget("nowhere.invalid:2661", none, 20_000);
    expect(target).rejects.toThrow('Cannot look up host "nowhere.invalid"');
    await target.catch(() => {});
  });
});

test("findProgram() looks in the folder first, then in PATH for bare names", () => {
  const folder = mkdtempSync(join(tmpdir(), "find-program-"));
  try {
    const programs = join(folder, "programs");
    const work = join(folder, "work");
    for (const path of [programs, work, join(work, "ping")]) mkdirSync(path);
    for (const path of [join(programs, "ping"), join(programs, "pong"), join(work, "pong")]) {
      writeFileSync(path, "#!/bin/sh\n");
      chmodSync(path, 0o755);
    }
    const find = (text: string): string => findProgram(text, work, { PATH: programs });
    expect(find("pong")).toBe(join(work, "pong"));
    expect(find("ping")).toBe(join(programs, "ping")); // the folder of that name is no program
    expect(find("./ping")).toBe(join(work, "ping"));
    expect(find("../programs/ping")).toBe(join(programs, "ping"));
    expect(find("missing")).toBe(join(work, "missing"));
    expect(find("/opt/x/../ping")).toBe("/opt/ping");
    expect(findProgram("ping", work, {})).toBe(join(work, "ping"));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
