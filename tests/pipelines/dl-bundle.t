A bundle becomes records: what CreateJob needs, then for each root its files and output folders.

  $ mkdir -p b/scene/sub; : >b/scene/one; : >b/scene/sub/.hidden; : >b/tool.py; ln -s ../tool.py b/scene/linked
  $ cat >b/template.yaml <<X
  > specificationVersion: jobtemplate-2023-09
  > name: Test  # kept
  > parameterDefinitions:
  > - {name: Scene, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: scene}
  > - {name: Out, type: PATH, objectType: FILE, dataFlow: OUT, default: out/frame.png}
  > - {name: Frames, type: INT, default: 3, minValue: 1, maxValue: 10}
  > - {name: Scale, type: FLOAT, default: 1, allowedValues: [0.5, 1]}
  > - {name: Text, type: STRING, default: t, maxLength: 5}
  > steps:
  > - name: Only
  >   script: {actions: {onRun: {command: "true"}}}
  > X
  $ cat >b/asset_references.yaml <<X
  > assetReferences: {inputs: {filenames: [tool.py]}}
  > X
  $ dl-bundle --offline b >out; tail -n +2 out | sed "s,$PWD,PWD,; s,\"size\":0\,\"mtime\":[0-9]*,S,"
  {"type":"root","root":"PWD/b","root_path_format":"posix"}
  {"type":"file","path":"tool.py","root":"PWD/b",S}
  {"type":"file","path":"scene/linked","root":"PWD/b",S}
  {"type":"file","path":"scene/one","root":"PWD/b",S}
  {"type":"file","path":"scene/sub/.hidden","root":"PWD/b",S}
  {"type":"output_dir","root":"PWD/b","path":"out"}
  {"type":"end","tool":"dl-bundle","ok":true,"records":7,"files":4,"bytes":0}
  $ head -n 1 out | python3 -c 'import json, sys; row = json.load(sys.stdin); print(open("b/template.yaml").read() == row.pop("template")); print(json.dumps(row).replace(sys.argv[1], "PWD"))' $PWD
  True
  {"type": "bundle", "path": "PWD/b", "template_type": "YAML", "name": "Test", "parameters": {"Scene": {"path": "PWD/b/scene"}, "Out": {"path": "PWD/b/out/frame.png"}}, "priority": 50, "max_failed_tasks_count": 20, "max_retries_per_task": 5, "file_system": "COPIED", "file_count": 4, "total_bytes": 0, "known_asset_paths": ["PWD/b"]}

How many files there are is told while it looks for them.

  $ dl-bundle --offline --progress json b 2>&1 >/dev/null | tail -n 1
  {"type":"progress","tool":"dl-bundle"}
  $ dl-bundle --offline --progress json b 2>&1 >/dev/null | head -n 1 | grep -c '"message":"finding files","done_count":[1-4]}$'
  1

Values from the bundle and from the command line; properties of the job by either, options first.

  $ cat >b/parameter_values.yaml <<X
  > parameterValues:
  > - {name: Frames, value: 7}
  > - {name: Scene, value: scene/sub}
  > - {name: "deadline:priority", value: 77}
  > - {name: "deadline:maxRetriesPerTask", value: 2}
  > X
  $ bundle() { dl-bundle --offline "$@" b | head -n 1 | python3 -c 'import json, sys; row = json.load(sys.stdin); print(json.dumps({name: row.get(name) for name in ("name", "parameters", "priority", "max_retries_per_task", "target_task_run_status")}).replace(sys.argv[1], "PWD"))' $PWD; }
  $ bundle -p Text=a=b --target-task-run-status suspended
  {"name": "Test", "parameters": {"Scene": {"path": "PWD/b/scene/sub"}, "Out": {"path": "PWD/b/out/frame.png"}, "Frames": {"int": "7"}, "Text": {"string": "a=b"}}, "priority": 77, "max_retries_per_task": 2, "target_task_run_status": "SUSPENDED"}
  $ bundle -p '{"Scene": "b/scene", "Frames": 1}' -p Frames=2 --name 'New "name"' --priority 3 -p Scale=.5
  {"name": "New \"name\"", "parameters": {"Scene": {"path": "PWD/b/scene"}, "Out": {"path": "PWD/b/out/frame.png"}, "Frames": {"int": "2"}, "Scale": {"float": "0.5"}}, "priority": 3, "max_retries_per_task": 2, "target_task_run_status": null}
  $ dl-bundle --offline --name New b | head -n 1 | grep -o 'name: \\"New\\"  # kept'
  name: \"New\"  # kept

What does not fit is refused before anything is emitted.

  $ try() { dl-bundle --offline "$@" 2>&1; }
  $ try -p Frames=11 b
  {"type":"end","tool":"dl-bundle","ok":false,"records":0,"status":65}
  dl-bundle: parameter 'Frames': 11 is more than maxValue 10
  [65]
  $ try -p Frames=many b | tail -n 1
  dl-bundle: parameter 'Frames': 'many' is not a whole number
  $ try -p Scale=0.7 b | tail -n 1
  dl-bundle: parameter 'Scale': 0.7 is not one of '0.5', '1'
  $ try -p Text=longer b | tail -n 1
  dl-bundle: parameter 'Text': 'longer' has 6 characters, but maxLength is 5
  $ try -p Farmes=2 b | tail -n 1
  dl-bundle: there is no job parameter 'Farmes'; the job has: Frames, Out, Scale, Scene, Text
  $ try -p Frames b
  {"type":"end","tool":"dl-bundle","ok":false,"records":0,"status":64}
  dl-bundle: --parameter takes Name=Value, not 'Frames'
  [64]
  $ try --priority 101 b | tail -n 1
  dl-bundle: --priority takes 0 to 100, not 101

So are paths from elsewhere, unless they are known or a later stage is to ask.

  $ mkdir elsewhere; : >elsewhere/f; ln -s ../elsewhere/f out-of-b
  $ sed -i "s,tool.py,$PWD/elsewhere/f," b/asset_references.yaml
  $ try b | tail -n 1 | sed "s,$PWD,PWD,"
  dl-bundle: paths lie outside of all known asset paths: 'PWD/elsewhere/f': give --known-asset-path with a folder that holds them, or set settings.known_asset_paths
  $ dl-bundle --offline b >/dev/null 2>&1
  [77]
  $ try --known-asset-path elsewhere b | tail -n 1
  {"type":"end","tool":"dl-bundle","ok":true,"records":5,"files":2,"bytes":0}
  $ try --unknown-paths pass b | grep -o '"unknown_asset_paths":[^]]*]' | sed "s,$PWD,PWD,"
  "unknown_asset_paths":["PWD/elsewhere/f"]

Missing inputs are left out with a warning, or refused.

  $ sed -i "s,elsewhere/f,b/gone," b/asset_references.yaml
  $ try b | sed "s,$PWD,PWD,; 2,3d"
  dl-bundle: warning: input path 'PWD/b/gone' is missing: the job goes without it
  {"type":"file","path":"scene/sub/.hidden",* (glob)
  {"type":"output_dir","root":"PWD/b","path":"out"}
  {"type":"end","tool":"dl-bundle","ok":true,"records":4,"files":1,"bytes":0}
  $ try --require-paths-exist b | tail -n 1 | sed "s,$PWD,PWD,"
  dl-bundle: input paths are missing: 'PWD/b/gone'
  $ rm b/asset_references.yaml

Files in input folders that can't be stored are told of; names that are no UTF-8 are a failure unless left out on purpose.

  $ ln -s nothing b/scene/sub/dangling; mkfifo b/scene/sub/fifo; : >b/scene/sub/$'x\xff'
  $ try b | grep -v '"type":"[brfo]' | sed "s,$PWD,PWD," | sort
  dl-bundle: the name 'PWD/b/scene/sub/x\xff' is no UTF-8, which a manifest can't hold
  dl-bundle: warning: 'PWD/b/scene/sub/dangling' is a link to nothing, and is left out
  dl-bundle: warning: 'PWD/b/scene/sub/fifo' is no regular file, and is left out
  {"type":"end","tool":"dl-bundle","ok":false,"records":4,"files":1,"bytes":0,"status":65}
  $ try --undecodable skip b | tail -n 1
  {"type":"end","tool":"dl-bundle","ok":true,"records":4,"files":1,"bytes":0}
  $ rm b/scene/sub/*
  $ try -p Text=$'\xff' b | tail -n 1
  dl-bundle: parameter 'Text': '\xff' is no UTF-8

A bundle that is none, or that is wrong, is refused in one line.

  $ try nowhere
  {"type":"end","tool":"dl-bundle","ok":false,"records":0,"status":66}
  dl-bundle: the job bundle 'nowhere' does not exist
  [66]
  $ mkdir none; try none | tail -n 1 | sed "s,$PWD,PWD,"
  dl-bundle: 'PWD/none' is no job bundle: it has no template.yaml or template.json
  $ ln -s ../../elsewhere b/scene/out; try b | tail -n 1 | sed "s,$PWD,PWD,g"; rm b/scene/out
  dl-bundle: the job bundle is refused: its link 'PWD/b/scene/out' leads out of it, to 'PWD/elsewhere'
  $ echo '{}' >b/template.json; try b | tail -n 1 | sed "s,$PWD,PWD,g"; rm b/template.json
  dl-bundle: the job bundle 'PWD/b' has template.yaml and template.json: remove one
  $ mkdir bad; printf 'a: [' >bad/template.yaml; try bad | tail -n 1 | sed "s,$PWD,PWD,g"
  dl-bundle: 'PWD/bad/template.yaml' is not YAML: * in line *, column * (glob)
  $ printf 'specificationVersion: jobtemplate-2023-09\nname: n\nsteps: [{name: s, scrip: {}}]' >bad/template.yaml
  $ try bad >seen; sed "s,$PWD,PWD,g" seen | cut -c 1-160; grep -c . seen
  {"type":"bundle","path":"PWD/bad",* (glob)
  {"type":"end","tool":"dl-bundle","ok":false,"records":1,"status":65}
  dl-bundle: job template 'PWD/bad/template.yaml' is not valid: * (glob)
  3

Before many files follow, the template's check is waited for.

  $ mkdir bad/in; for n in $(seq 201); do : >bad/in/$n; done
  $ printf 'assetReferences: {inputs: {directories: [in]}}' >bad/asset_references.yaml
  $ try bad | head -n 2 | cut -c 1-60
  {"type":"bundle",* (glob)
  {"type":"end","tool":"dl-bundle","ok":false,"records":1,"sta
  $ rm bad/in/1; try bad | tail -n 2 | cut -c 1-62
  {"type":"end","tool":"dl-bundle","ok":false,"records":202,"fil
  dl-bundle: job template '* (glob)
