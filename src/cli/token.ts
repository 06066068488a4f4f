// `token new`: a secret file, with which clients on other machines show that they may control a daemon.

import { closeSync, fsyncSync, openSync, rmSync, writeSync } from "node:fs";
import { resolve } from "node:path";

import { OrchestratorError, systemCode } from "../errors.ts";
import { escapeText } from "../log.ts";
import { shellWord } from "./print.ts";
import type { Session } from "./session.ts";
import { CLI, DAEMON } from "./surface.ts";

/** More than anybody can guess. */
const TOKEN_BYTES = 32;

export async function newToken(session: Session): Promise<void> {
  const { terminal, values } = session;
  const file = resolve(terminal.folder, values.get("FILE") as string);
  const token = Buffer.from(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES))).toString(
    "base64url",
  );
  let fd: number;
  try {
    fd = openSync(file, "wx", 0o600); // never one that is there, never through a link
  } catch (cause) {
    throw unwritten(file, cause);
  }
  try {
    writeSync(fd, `${token}\n`);
    fsyncSync(fd);
  } catch (cause) {
    rmSync(file, { force: true }); // half a token would be in the way of a whole one
    throw unwritten(file, cause);
  } finally {
    closeSync(fd);
  }
  if (!session.isJson && !session.isQuiet) {
    const word = escapeText(shellWord(file));
    terminal.report(
      `start the daemon with it: ${DAEMON} --token-file ${word} --control-socket HOST:PORT\n` +
        `and copy it to where you type: ${CLI} ps --token-file ${word} --socket HOST:PORT\n`,
    );
  }
  await session.answer({ file }, () => `${terminal.outputIsScreen ? escapeText(file) : file}\n`);
}

function unwritten(file: string, cause: unknown): OrchestratorError {
  const isThere = systemCode(cause) === "EEXIST";
  const message = `Cannot write the token to ${JSON.stringify(file)}`;
  return new OrchestratorError(isThere ? "already_exists" : "io", message, {
    cause,
    ...(isThere ? { hint: "choose another file, or remove that one" } : {}),
  });
}
