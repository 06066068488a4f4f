// A door: tokens, certificates and keys in files, and whether they have changed.

import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
} from "node:fs";

import { OrchestratorError, systemCode } from "../errors.ts";
import { MAX_TOKEN_BYTES, MIN_TOKEN_LENGTH } from "../limits.ts";

/**
 * Reads a secret: one line in a file that is ours (or root's) and that nobody else may read.
 * @throws `permission_denied` if others may read it or it is a link; `io` if it cannot be read
 */
export function readSecret(path: string): string {
  const subject = `Cannot use the token file ${JSON.stringify(path)}`;
  const refuse = (reason: string, hint: string): OrchestratorError =>
    new OrchestratorError("permission_denied", `${subject}: ${reason}`, { hint });
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    if (systemCode(cause) === "ELOOP") throw refuse("it is a link", "name the file itself");
    throw new OrchestratorError("io", subject, {
      cause,
      hint: "make one with the command token new",
    });
  }
  try {
    const found = fstatSync(fd); // of what is open: a path may lead elsewhere by now
    if (!found.isFile()) throw refuse("it is not a file", "make one with the command token new");
    const own = process.getuid?.() ?? 0;
    if (found.uid !== own && found.uid !== 0)
      throw refuse(`it belongs to user ${found.uid}`, "it must be your own");
    if ((found.mode & 0o077) !== 0) throw refuse("others may read it", `chmod 600 ${path}`);
    const buffer = Buffer.alloc(MAX_TOKEN_BYTES + 1);
    const text = buffer.toString("utf8", 0, readSync(fd, buffer)).trim();
    if (
      text.length < MIN_TOKEN_LENGTH ||
      Buffer.byteLength(text) > MAX_TOKEN_BYTES ||
      /\s/.test(text)
    ) {
      throw refuse(
        `it is not one word of ${MIN_TOKEN_LENGTH} to ${MAX_TOKEN_BYTES} bytes`,
        "make one with the command token new",
      );
    }
    return text;
  } finally {
    closeSync(fd);
  }
}

/** Reads certificates or a key. @throws `io` if there are none to be read */
export function readPem(path: string): string {
  const subject = `Cannot use the file ${JSON.stringify(path)}`;
  const hint = "name a file that you may read, with lines of PEM";
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new OrchestratorError("io", subject, { cause, hint });
  }
  if (!text.includes("-----BEGIN ")) {
    throw new OrchestratorError("io", `${subject}: it is no PEM`, { hint });
  }
  return text;
}

/**
 * Whether every user of this machine may read a file, if its folder lets them. A group may have been
 * given a key on purpose, as `ssl-cert` is, and so may a service with its secrets.
 */
export function isForEverybody(path: string): boolean {
  return ((statSync(path, { throwIfNoEntry: false })?.mode ?? 0) & 0o004) !== 0;
}

/** What is another text whenever one of these files is another file, or has changed. */
export async function versionOf(paths: readonly string[]): Promise<string> {
  const { stat } = await import("node:fs/promises"); // few need it, and it takes its time
  const found = paths.map(async (path) => {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
  });
  return (await Promise.allSettled(found))
    .map((one) => (one.status === "fulfilled" ? one.value : systemCode(one.reason)))
    .join("\n");
}
