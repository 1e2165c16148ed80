"""Convert a weight file to another format or number type: safetensors, PyTorch, MindSpore.

mg convert vae/diffusion_pytorch_model.bin vae.safetensors --dtype float16
mg convert mp_rank_00_model_states.pt transformer/diffusion_pytorch_model.safetensors
"""

from pathlib import Path

from mg.cli.argument_parser import CommandParser
from mg.dtypes import DTYPES
from mg.weights.conversion import convert_weights
from mg.weights.inspection import inspect_checkpoint


def main() -> None:
    names = {"input": "src", "weights": "src", "output": "dst", "output_path": "dst"}
    parser = CommandParser(__doc__, names=names)
    parser.add_argument(
        "src",
        type=Path,
        help="safetensors, PyTorch, MindSpore or npz file, or a folder with one",
    )
    parser.add_argument(
        "dst", type=Path, help="the file to write: .safetensors, .pt, .pth, .bin or .ckpt"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="type of the floating-point tensors; default: as they are"
    )
    parser.add_argument(
        "--key", help="which weights of a file that holds several; default: the averaged ones"
    )
    parser.add_argument(
        "--keep_names",
        action="store_true",
        help="leave the original names of CogVideoX's and HunyuanVideo's transformers, which "
        "otherwise become diffusers'",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    arguments = parser.parse_args()
    convert_weights(
        arguments.src,
        arguments.dst,
        dtype=arguments.dtype,
        key=arguments.key,
        keep_names=arguments.keep_names,
        overwrite=arguments.overwrite,
    )
    report = inspect_checkpoint(arguments.dst, sha256=True)
    kinds = ", ".join(f"{dtype} ({number})" for dtype, number in report.dtypes.items())
    print(f"{arguments.dst}: {len(report.tensors)} tensors, {kinds}")
    print(f"{report.num_parameters:,} parameters, {report.files[0].num_bytes:,} bytes")
    print(f"sha256 {report.files[0].sha256}")
