// Nothing was opened: what was read, and what to do.
import { Problems } from '../parts'
import type { Content } from '../types'
import { told } from '../words'

export function Start({ given }: { given: Content }) {
  return (
    <section class="empty">
      <h1>Open a result</h1>
      {given.folder && <p>Read {given.folder}: {given.runs.length} results, {given.others.length} other {given.others.length === 1 ? 'file' : 'files'}.</p>}
      {given.problems.length > 0 && <Problems title="What could not be read" lines={given.problems.map((problem) => <>{told(problem)}{problem.fix && <div class="soft">{problem.fix}</div>}</>)} />}
      <p>Write one, then open it here:</p>
      <pre tabIndex={0}>{'tierform simulate bert-large --chip atleus --task finetune --method lora --json run.json\ntierform studio run.json'}</pre>
      {given.others.length > 0 && <details><summary>Other files</summary><ul class="plainlist">{given.others.map((name) => <li>{name}</li>)}</ul></details>}
    </section>
  )
}
