/** What a system error says, and a path as messages show it. */

export function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** For `catch`: takes the error with this code for success. */
export function unless(code: string): (error: unknown) => void {
  return (error) => {
    if (codeOf(error) !== code) throw error;
  };
}

/** As JSON: a path may contain anything, and messages go to logs. */
export function quote(path: string): string {
  return JSON.stringify(path);
}
