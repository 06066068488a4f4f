// R6 at a small size: a disk that is full keeps messages from nothing, and changes from being made.

import { expect, setDefaultTimeout, test } from "bun:test";

import { join } from "node:path";

import type { Info } from "../../src/protocol/info.ts";
import { fullDisk } from "../experiments/disks.ts";
import { misses } from "../experiments/outcome.ts";
import { withFolder } from "../support/daemon.ts";
import { Disk, NO_DISK } from "../support/disk.ts";
import type { Control } from "../support/wire.ts";

setDefaultTimeout(120_000);

function canMount(): boolean {
  const disk = Disk.mount(2 ** 20);
  disk?.unmount();
  return disk !== undefined;
}

/** On a disk that can be filled; who is not root may mount one in a namespace of their own. */
async function onDisk(work: () => Promise<void>): Promise<void> {
  if (canMount()) return work();
  // Who is not root may be so in a namespace of their own.
  const again = ["unshare", "-rm", process.execPath, "test", import.meta.path];
  const isInside = process.env["DISKS_INSIDE"] !== undefined;
  const env = { ...process.env, DISKS_INSIDE: "yes" };
  const canUnshare = (): boolean =>
    Bun.which("unshare") !== null &&
    Bun.spawnSync(["unshare", "-rm", "true"], { stderr: "ignore" }).success;
  if (isInside || !canUnshare()) {
    console.warn(`not tried: ${NO_DISK}`);
    return;
  }
  const { stderr, exitCode } = Bun.spawnSync(again, { env });
  expect([exitCode, exitCode === 0 ? "" : stderr.toString()]).toEqual([0, ""]);
}

test("Messages flow on while the disk is full, and nothing is half-done (R6)", () =>
  onDisk(async () => {
    expect(misses(await fullDisk({ rounds: 2, ms: 700 }), "sane")).toEqual([]);
  }));

/** Uses up what room the state itself has; returns the code of the refusal. */
async function addUntilRefused(control: Control): Promise<unknown> {
  for (;;) {
    const { code } = await control.ask({ Add: { id: crypto.randomUUID(), path: "/bin/true" } });
    if (code !== undefined) return code;
  }
}

test.each(["SIGKILL", "SIGTERM"] as const)(
  "What ran runs again, on a disk that is full, after %s (R2, R6)",
  (signal) =>
    onDisk(async () => {
      const disk = Disk.mount(2 ** 20) as Disk;
      try {
        await withFolder(async (folder, launch) => {
          const args = ["--state-dir", join(disk.folder, "state")];
          const socket = join(folder, "veecle-orchestrator.socket");
          const first = launch(args);
          const before = await first.control(socket);
          const ids = Array.from({ length: 20 }, () => crypto.randomUUID());
          for (const id of ids) {
            await before.ok({ Add: { id, path: "/bin/sleep", args: ["1000"] } });
            await before.ok({ Start: id });
          }
          disk.fill();
          expect(await addUntilRefused(before)).toBe("io");
          await first.end(signal);
          const second = launch(args);
          const control = await second.control(socket);
          const { runtimes } = (await control.ok("Info")) as Info;
          expect(ids.filter((id) => runtimes[id]?.running !== true)).toEqual([]);
          disk.fill();
          expect(await addUntilRefused(control)).toBe("io");
          disk.makeRoom();
          await control.ok({ Add: { id: crypto.randomUUID(), path: "/bin/true" } });
          await control.ok("Clear");
          await second.end("SIGTERM");
        });
      } finally {
        disk.unmount();
      }
    }),
);
