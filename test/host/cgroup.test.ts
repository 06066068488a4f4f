import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { type Cgroups, openCgroupsIn, ownCgroup } from "../../src/host/cgroup.ts";
import SCRIPT from "../../src/host/guard.sh" with { type: "text" };
import { isAlive, Nursery } from "../support/processes.ts";
import { until } from "../support/wire.ts";

setDefaultTimeout(30_000);

const nursery = new Nursery();

describe("ownCgroup()", () => {
  const unified =
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
  const hybrid =
    "31 23 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
    "32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
  const container = "40 23 0:26 /docker/7 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";

  test.each([
    ["of a service", "0::/user.slice/a.service\n", unified, "/sys/fs/cgroup/user.slice/a.service"],
    ["beside version 1", "8:pids:/x\n0::/a.service\n", hybrid, "/sys/fs/cgroup/unified/a.service"],
    ["in a container", "0::/docker/7/inner\n", container, "/sys/fs/cgroup/inner"],
    ["of another container", "0::/docker/77\n", container, undefined],
    ["at the root, which nobody delegates", "0::/\n", unified, undefined],
    ["of version 1 alone", "8:pids:/x\n", unified, undefined],
    ["that is not mounted", "0::/a.service\n", "", undefined],
  ])("finds the one %s", (_, cgroup, mounts, path) => {
    expect(ownCgroup(cgroup, mounts)).toBe(path as string);
  });
});

describe("openCgroupsIn() a folder", () => {
  function folder(name: string, ...files: string[]): string {
    const path = join(nursery.folder, name);
    mkdirSync(path);
    for (const file of files) writeFileSync(join(path, file), "");
    return path;
  }

  test("makes one folder for all runs and one for each, and removes them", () => {
    const own = folder("own", "cgroup.procs", "cgroup.kill");
    const groups = openCgroupsIn(own, "abc") as Cgroups;
    const group = groups.make("7");
    expect(group.path).toBe(join(own, "orchestrator-abc", "7"));
    expect(groups.remove()).toBe(true);
    expect(readdirSync(own).sort()).toEqual(["cgroup.kill", "cgroup.procs"]);
    expect([group.pids(), group.remove()]).toEqual([[], true]);
    group.kill(); // nothing is there to be killed
  });

  test("reads who is in a group and in those below, and writes who is to be killed", () => {
    const own = folder("busy", "cgroup.procs", "cgroup.kill");
    const group = (openCgroupsIn(own, "abc") as Cgroups).make("7");
    mkdirSync(join(group.path, "inner"));
    writeFileSync(join(group.path, "cgroup.procs"), "12\n13\n");
    writeFileSync(join(group.path, "inner", "cgroup.procs"), "14\n");
    writeFileSync(join(group.path, "cgroup.kill"), "");
    group.kill();
    expect(group.pids()).toEqual([12, 13, 14]);
    expect(readFileSync(join(group.path, "cgroup.kill"), "utf8")).toBe("1");
    expect(group.remove()).toBe(false);
  });

  test.each([
    ["cannot kill", ["cgroup.procs"]],
    ["is no control group", []],
  ])("leaves alone one that %s", (name, files) => {
    const own = folder(name, ...files);
    expect(openCgroupsIn(own, "abc")).toBeUndefined();
    expect(readdirSync(own)).toEqual(files);
  });
});

/** A control group of our own, if this machine lets us have one. */
function delegated(): string | undefined {
  for (const mount of ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]) {
    const path = join(mount, `test-${nursery.runId}`);
    try {
      if (!existsSync(join(mount, "cgroup.procs"))) continue;
      mkdirSync(path);
      if (existsSync(join(path, "cgroup.kill"))) return path;
      rmdirSync(path);
    } catch {
      // not ours to use
    }
  }
  return undefined;
}

const own = delegated();

describe.skipIf(own === undefined)("A real control group", () => {
  const groups = own === undefined ? undefined : openCgroupsIn(own, nursery.runId);
  afterAll(() => {
    expect(groups?.remove()).toBe(true);
    rmdirSync(own as string);
  });

  /** Leaves everything by which it could be known, but for the group. */
  const escape = "(setsid env -i sh -c 'echo \"ready $$\"; exec sleep 1000' &); exec sleep 1000";

  test("holds and ends what has left the session, the environment and its parent", async () => {
    const group = (groups as Cgroups).make("1");
    const run = nursery.enclose(group, "sh", "-c", escape);
    const [escaped] = (await run.ready()) as [number];
    expect((await run.tree.left()).map(({ pid }) => pid)).toEqual([run.pid, escaped]);
    expect(await run.tree.kill(5_000)).toEqual([]);
    expect(isAlive(escaped)).toBe(false);
    await until("it can be removed", () => group.remove());
  });

  test("is ended by the guard, with all others of the daemon", async () => {
    const group = (groups as Cgroups).make("2");
    const run = nursery.enclose(group, "sh", "-c", escape);
    const [escaped] = (await run.ready()) as [number];
    const guard = Bun.spawn({
      cmd: ["sh", "-c", SCRIPT, "guard", crypto.randomUUID(), (groups as Cgroups).path],
      stdin: "pipe",
      detached: true,
    });
    guard.stdin.end();
    expect(await guard.exited).toBe(0);
    expect(isAlive(escaped)).toBe(false);
    await until("it can be removed", () => group.remove());
  });
});

if (own === undefined) console.warn("real control groups are not tried: none can be made here");
