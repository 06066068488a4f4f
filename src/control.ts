// Server side of the control socket: who comes in, how many at once, and who is turned away.

import type { Access, Verdict } from "./control/access.ts";
import { type ConnectionOptions, ControlConnection } from "./control/connection.ts";
import { OrchestratorError } from "./errors.ts";
import { MAX_CONTROL_CONNECTIONS } from "./limits.ts";
import { encodeError } from "./protocol.ts";
import { type Connection, DISCARD, type StreamHandlers } from "./socket.ts";

export interface ControlOptions extends ConnectionOptions {
  readonly access: Pick<Access, "judge">;
}

/** Accepts control connections, up to a limit. */
export class ControlServer {
  readonly #options: ControlOptions;
  readonly #open: Set<ControlConnection> = new Set();
  /** Connections of which it is not known yet who they are. */
  #judged = 0;
  #nextId = 0;

  constructor(options: ControlOptions) {
    this.#options = options;
  }

  accept(connection: Connection): StreamHandlers {
    if (this.#open.size + this.#judged >= MAX_CONTROL_CONNECTIONS) {
      const refusal = new OrchestratorError(
        "limit_exceeded",
        `Cannot accept connection: ${MAX_CONTROL_CONNECTIONS} are open, which is the limit; try again later`,
      );
      return turnAway(connection, refusal);
    }
    const { origin } = connection;
    const verdict = origin === undefined ? OURS : this.#options.access.judge(origin);
    if (!(verdict instanceof Promise)) return this.#begin(connection, verdict);
    // Until it is known who it is, nothing is read.
    connection.pause();
    this.#judged++;
    let handlers: StreamHandlers | undefined;
    let hasEnded = false;
    let isClosed = false;
    verdict
      .then((known) => {
        this.#judged--;
        if (isClosed) return;
        handlers = this.#begin(connection, known);
        if (hasEnded) handlers.end();
        connection.resume();
      })
      .catch((error: unknown) => {
        this.#options.onFault(error);
        connection.close();
      });
    return {
      data: (chunk) => handlers?.data(chunk),
      drain: () => handlers?.drain(),
      end: () => {
        hasEnded = true;
        handlers?.end();
      },
      close: () => {
        isClosed = true;
        handlers?.close();
      },
    };
  }

  #begin(connection: Connection, verdict: Verdict): StreamHandlers {
    if (verdict.kind === "refused") {
      const { error, by } = verdict;
      this.#options.log.warn("run:connection", "refused a connection", {
        "connection.peer": connection.peer,
        by,
        error: error.message,
      });
      return turnAway(connection, error);
    }
    const control = new ControlConnection(this.#options, connection, this.#nextId++, verdict);
    this.#open.add(control);
    return {
      data: (chunk) => control.receive(chunk),
      drain: () => control.drain(),
      end: () => control.endInput(),
      close: () => {
        this.#open.delete(control);
        control.closed();
      },
    };
  }

  /** Ends every connection, after the responses that are still unsent. */
  close(): void {
    for (const control of this.#open) control.finish();
  }
}

/** A connection whose origin nobody knows was made by this process itself. */
const OURS: Verdict = { kind: "served", by: "self" };

/** Tells a client why it is not served; its dialect is not known yet. */
function turnAway(connection: Connection, refusal: OrchestratorError): StreamHandlers {
  connection.write(Buffer.from(`${encodeError(refusal, false)}\n`));
  connection.finish();
  return DISCARD;
}
