// Who reads a stream that a command prints: it ends when nobody does any more.

import type { ControlClient } from "../client.ts";
import type { Session } from "./session.ts";

export class Reader {
  readonly #session: Session;
  #isGone = false;

  /** Closes `client` when standard output has lost its reader, even while nothing is written. */
  constructor(session: Session, client: ControlClient) {
    this.#session = session;
    void session.terminal.outputClosed().then(() => {
      this.#isGone = true;
      client.close();
    });
  }

  /**
   * A followed stream has ended, for a reason that is to be told apart.
   * @throws `unreachable` if the daemon is gone, with `reason` before the cause
   */
  async ended(reason: string): Promise<void> {
    if (!this.#isGone) await this.#session.reconnect(reason);
  }
}
