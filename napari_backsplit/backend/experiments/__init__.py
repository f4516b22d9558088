'''Experiments: the same arms trained on several draws of the data, and compared over the draws.

A plan is a TOML file; the built-in ones are in `plans/`. Draw after draw (a project of its own with
cases of its own, and runs seeded with the draw's number) every arm is trained, predicts the
held-out cases and is compared with the first arm, the baseline, and with each control.

    name = "supports"                    # a-z, 0-9 and -
    title = "One line for people"
    about = """Text for the page: what is asked, with what data and budget."""
    controls = ["binary, longer"]        # every other arm is measured against these too

    [data]                               # synthetic cases, drawn anew for each draw
    kind = "synthetic"
    draws = [101, 102, 103]
    train = 16
    test = 24
    phantom = { shape = [40, 60, 60], lesion_free = 0.33 }                 # PhantomSpec's fields
    supports = { kidney = ["kidney"], bowel = ["bowel", "gallbladder"] }   # name = structures

    [plan]                               # PlanSpec: backsplit plan --help
    features = [8, 16, 32, 64]
    patch_size = [32, 32, 32]

    [run]                                # RunSpec for all arms: backsplit train --help
    epochs = 12
    iterations = 100

    [prediction]                         # parameters of the predict job
    probabilities = true                 # for average precision and matched sensitivity
    mirroring = false

    [[arms]]                             # the first is the baseline
    name = "binary"
    run = { arm = "binary" }             # what differs from [run]

    [[arms]]
    name = "binary, longer"
    start = "binary"                     # starts from that arm's model; it stands above
    run = { arm = "binary", epochs = 6, initial_lr = 3e-4 }

    [[arms]]
    name = "fine-tuned"
    start = "binary"
    run = { arm = "backsplit", supports = ["kidney"], epochs = 6, initial_lr = 3e-4 }

The data may also be a folder with `images/` and `labels/` (label maps of many ids):

    [data]
    kind = "labels"
    folder = "hippocampus"               # in $BACKSPLIT_TEST_DATA, unless --data names it
    channel = "MR"
    ids = { 1 = "anterior", 2 = "posterior" }
    targets = ["posterior"]
    supports = ["anterior"]
    test = 8                             # patients held out, drawn anew for each draw
    draws = [0]

or a project that exists (`kind = "project"`, `folder`, `draws`): then a draw is a seed of the
trainings alone. `--project` and `--draws` set these from the command line.
'''
