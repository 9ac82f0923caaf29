needs: farm
The first run begins to look; it fetches nothing of what was before.

  $ dl-sync --ignore-storage-profiles --checkpoint-dir checkpoint | jq -r .type
  end
  $ cp -r checkpoint c2

A job puts out a file in each of two tasks, and the same file in both.

  $ mkdir shot && cat >shot/template.yaml <<'END'
  > specificationVersion: jobtemplate-2023-09
  > name: dl-sync test
  > parameterDefinitions:
  > - {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT}
  > steps:
  > - name: one
  >   parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-2"}]}
  >   script:
  >     actions:
  >       onRun: {command: bash, args: ["-c", "cd '{{Param.Out}}' && echo {{Task.Param.N}} | tee {{Task.Param.N}}.txt >same.txt"]}
  > END
  $ mkdir out && dl-bundle shot -p Out="$PWD/out" | dl-submit | dl-wait | jq -r 'select(.type == "job").job_id' >job
  $ sync() { dl-sync --ignore-storage-profiles --checkpoint-dir checkpoint "$@" | grep -F -e "$(cat job)" -e '"end"'; }

A dry run tells of the files, and changes nothing.

  $ sync --dry-run >told
  $ jq -r 'select(.type == "file") | .local_path | sub(".*/out/"; "")' told | sort
  1.txt
  2.txt
  same.txt
  $ ls -A out; diff -r checkpoint c2

Then they are fetched, each once.

  $ sync >told
  $ jq -r 'select(.type != "end") | [.type, .path // .download_status, .download] | join(" ")' told | sort
  file 1.txt new
  file 2.txt new
  file same.txt new
  job downloaded 
  $ cat out/1.txt out/2.txt
  1
  2
  $ jq -r '.jobs[] | select(.job.jobId == $id) | .sessionCompletedIndexes | length >= 1' --arg id "$(cat job)" checkpoint/*_checkpoint.json
  true
  $ jq -r '.jobs[$id] | [.download_status, .total_files, (.tasks | length)] | join(" ")' --arg id "$(cat job)" checkpoint/*_status.json
  downloaded 3 2

The next run has nothing to do; nor does the file come back that was taken away.

  $ rm out/1.txt; sync | jq -r .type
  end
  $ ls out
  2.txt
  same.txt

As the wrapper tells of it.

  $ deadline -n queue sync-output --ignore-storage-profiles --dry-run
  dl-sync --ignore-storage-profiles --bootstrap-lookback-minutes=0 '--checkpoint-dir=~/.deadline/incremental_download' --conflict-resolution=overwrite --dry-run | dl-show --output=verbose sync-output
  $ deadline queue sync-output --ignore-storage-profiles --checkpoint-dir c2 >told
  $ grep -F "$(cat job)" told | sed 's/(job-[0-9a-f]*)/(ID)/'
  dl-sync test (ID): downloaded, 3 files
  $ grep -A 2 '^Summary' told | tail -n 1 | tr -d 0-9
    Downloaded files: 
  $ cat out/1.txt
  1
  $ deadline queue sync-output --ignore-storage-profiles --checkpoint-dir c2 --json | jq -c '[.status, .dryRun, .files, .failedFiles]'
  ["success",false,0,0]

One at a time.

  $ echo $$ >checkpoint/$(basename checkpoint/*_checkpoint.json).pid
  $ sync 2>&1 >/dev/null | sed 's/[0-9]\{2,\}/N/; s/(.*//'
  dl-sync: the process N is fetching output with the same checkpoint: wait for it, or stop it 
  $ echo 999999999 >checkpoint/$(basename checkpoint/*_checkpoint.json).pid
  $ sync 2>&1 >/dev/null | sed "s/'.*'/LOCK/"
  dl-sync: warning: the lock LOCK is removed: the process 999999999, which wrote it, is gone

Troubles.

  $ dl-sync --ignore-storage-profiles --storage-profile-id sp-1 2>&1 >/dev/null
  dl-sync: --storage-profile-id and --ignore-storage-profiles exclude each other
  [64]
  $ dl-sync --checkpoint-dir checkpoint >/dev/null 2>&1
  [64]
  $ echo '{}' >checkpoint/$(basename checkpoint/*_checkpoint.json); dl-sync --ignore-storage-profiles --checkpoint-dir checkpoint >/dev/null 2>&1
  [65]
