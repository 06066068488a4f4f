import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { findProgram } from "../../src/cli/add.ts";
import { findInstance, findTarget } from "../../src/cli/resolve.ts";
import type { OrchestratorError } from "../../src/errors.ts";

const A = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
const B = "0195fc7b-33e6-70e3-bee1-ac515185fa00";
const BOTH = new Map([
  [A, "ping"],
  [B, "pong"],
]);

describe("findInstance()", () => {
  test.each([
    [A, A],
    ["fac7", A],
    ["FAC7", A],
    ["7", A],
    ["0195fc7b-33e6-70e3-bee1-ac515185fac", A],
    ["a00", B],
    ["ping", A],
    ["pong", B],
  ])("%s is one id", (text, id) => {
    expect(findInstance(text, BOTH)).toBe(id);
  });

  test("what begins and ends the same id is one id", () => {
    expect(findInstance("0", new Map([[B, "pong"]]))).toBe(B);
  });

  test.each([
    ["0195", `Cannot tell which instance "0195" is: it fits ${A} (ping), ${B} (pong)`],
    ["pinh", 'Cannot find instance "pinh": it is no name, and no id begins or ends with it'],
    ["70e3", 'Cannot find instance "70e3": it is no name, and no id begins or ends with it'],
  ])("%s is refused", (text, message) => {
    expect(() => findInstance(text, BOTH)).toThrow(message);
  });

  test("names a few of many", () => {
    const many = new Map(Array.from({ length: 100 }, (_, n) => [`0195${n}`, `x${n}`]));
    expect(() => findInstance("0195", many)).toThrow(
      "01950 (x0), 01951 (x1), 01952 (x2), 01953 (x3) and 96 more",
    );
  });

  test("suggests the name that was probably meant", () => {
    try {
      findInstance("pinh", BOTH);
      throw new Error("it was found");
    } catch (error) {
      expect((error as OrchestratorError).hint).toBe("did you mean ping?");
    }
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
    const target = await findTarget("fac7", () => Promise.resolve(BOTH), 1000);
    expect(target).toEqual({ kind: "instance", id: A });
  });

  test("resolves names to an IP address", async () => {
    expect(await findTarget("localhost:2661", none, 5000)).toEqual({
      kind: "remote",
      host: "127.0.0.1",
      port: 2661,
    });
  });

  test("takes the name of an interface for its number", async () => {
    expect(await findTarget("[fe80::1%lo]:2661", none, 5000)).toEqual({
      kind: "remote",
      host: "fe80::1%1",
      port: 2661,
    });
    expect(findTarget("[fe80::1%nope0]:2661", none, 5000)).rejects.toThrow("Cannot look up host");
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
