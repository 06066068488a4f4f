// The baseline of output on disk: a bare Bun program that starts the printer, reads what it prints,
// and writes that to files of 10 MiB, of which it keeps three.

import { mkdirSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";

const FILE_BYTES = 10 * 1024 * 1024;
const FILES = 3;

const [folder, ...command] = process.argv.slice(2) as [string, ...string[]];
const path = (number: number): string => join(folder, `${String(number).padStart(8, "0")}.log`);

mkdirSync(folder);
const child = Bun.spawn({
  cmd: command,
  env: { PATH: process.env["PATH"] ?? "" },
  stdio: ["ignore", "pipe", "inherit"],
});
process.on("exit", () => child.kill("SIGKILL"));
process.on("SIGTERM", () => process.exit(0));
let number = 1;
let bytes = 0;
let file = await open(path(number), "a", 0o600);
for await (const chunk of child.stdout) {
  if (bytes + chunk.length > FILE_BYTES) {
    await file.close();
    rmSync(path(++number - FILES), { force: true });
    file = await open(path(number), "a", 0o600);
    bytes = 0;
  }
  bytes += chunk.length;
  await file.writeFile(chunk);
}
