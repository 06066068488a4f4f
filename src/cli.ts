// The command line: words → a request to the daemon → a printed answer and an exit code.
//
// What can be typed stands in `cli/commands.ts`, what it does in `cli/run.ts`. This file wires them
// and is the one place where errors end.

import type { Asked } from "./cli/print.ts";
import { parseCommand } from "./cli/parse.ts";
import { RUN } from "./cli/run.ts";
import { Session } from "./cli/session.ts";
import { processTerminal, type Terminal } from "./cli/terminal.ts";
import { errorCode } from "./errors.ts";
import { ClosedPipe } from "./files/stdout.ts";
import { versionLine } from "./version.ts";

export { parseCommand } from "./cli/parse.ts";

/** The exit code after Ctrl-C. */
const INTERRUPTED = 130;

/**
 * Runs one command line, the words after the program's name, and returns its exit code. Never throws.
 * Soon afterwards the process ends, even if something still hangs.
 */
export async function main(
  argv: readonly string[],
  terminal: Terminal = processTerminal(),
): Promise<number> {
  const plain = Boolean(terminal.env["NO_COLOR"]) || argv.includes("--no-color");
  let asked: Asked | undefined;
  let session: Session | undefined;

  async function run(): Promise<number> {
    if (argv.some((word) => word.includes("\uFFFD"))) {
      (await import("./cli/text.ts")).checkOwnWords();
    }
    const invocation = parseCommand(argv);
    if (invocation.kind === "version") {
      await terminal.write(versionLine());
      return 0;
    }
    if (invocation.kind === "help") {
      const { fitPage, helpPage } = await import("./cli/help.ts");
      const page = helpPage(invocation.topic);
      const { columns } = terminal;
      await terminal.write(columns === undefined ? page : fitPage(page, columns));
      return 0;
    }
    const { command, values } = invocation;
    asked = { command: command.name, values };
    session = new Session(values, terminal, plain);
    if (invocation.kind === "first") {
      await (await import("./cli/first.ts")).first(session);
      return 0;
    }
    return (await RUN[command.name](session)) ?? 0;
  }

  async function interrupted(): Promise<number> {
    await terminal.interrupted;
    // A shell ends the line of a program that a signal has ended, and not of one that exits.
    if (terminal.reportIsScreen) terminal.report("\n");
    return INTERRUPTED;
  }

  try {
    return await Promise.race([run(), interrupted()]);
  } catch (error) {
    if (error instanceof ClosedPipe) return 0;
    const { errorDocument, exitCode, formatError } = await import("./cli/print.ts");
    if (asked !== undefined) asked = { ...asked, found: await findOnPath(error, session) };
    terminal.report(
      argv.includes("--json")
        ? errorDocument(error, asked)
        : formatError(error, asked, terminal.reportIsScreen && !plain),
    );
    return exitCode(error);
  } finally {
    session?.close();
    terminal.release();
  }
}

/** What is in the way on the path of a daemon that is not reached. */
async function findOnPath(error: unknown, session?: Session): Promise<Asked["found"]> {
  if (errorCode(error) !== "unreachable" || session?.address.kind !== "unix") return undefined;
  const { isOtherFile } = await import("./files.ts");
  const { lockHolder } = await import("./files/lock.ts");
  const { path } = session.address;
  try {
    if (isOtherFile(path)) return "no socket";
  } catch {
    return undefined; // nobody may look there
  }
  return lockHolder(`${path}.lock`);
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
