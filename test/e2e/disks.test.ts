// R6 at a small size: a disk that is full keeps messages from nothing, and changes from being made.

import { expect, setDefaultTimeout, test } from "bun:test";

import { fullDisk } from "../experiments/disks.ts";
import { misses } from "../experiments/outcome.ts";
import { Disk, NO_DISK } from "../support/disk.ts";

setDefaultTimeout(120_000);

function canMount(): boolean {
  const disk = Disk.mount(2 ** 20);
  disk?.unmount();
  return disk !== undefined;
}

test("Messages flow on while the disk is full, and nothing is half-done (R6)", async () => {
  if (canMount()) {
    expect(misses(await fullDisk({ rounds: 2, ms: 700 }), "sane")).toEqual([]);
    return;
  }
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
});
